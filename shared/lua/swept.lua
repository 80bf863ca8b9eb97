-- End a comparison of the object store with this ledger. One that lost its data meanwhile has lost the right,
-- too; somebody else may have it by now.
-- KEYS: 16 SWEEPING, 17 SWEPT. ARGV: 4 '1' if the ledger is whole now, 5 ms until the next one is due, 6 the right:
-- a word of its own, a blank, and the server that it was given by.
if redis.call('GET', KEYS[16]) ~= ARGV[6] then
  return 0
end
redis.call('DEL', KEYS[16])
if ARGV[4] == '1' then
  redis.call('SET', founded, now)
  redis.call('SET', KEYS[17], string.match(ARGV[6], ' (.*)$'), 'PX', ARGV[5])
end
return 1
