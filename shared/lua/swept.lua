-- End a comparison of the object store with this ledger. One that lost its data meanwhile has lost the right,
-- too.
-- KEYS: 15 SWEEPING, 16 SWEPT. ARGV: 4 '1' if the ledger is whole now, 5 ms until the next one is due.
local server = redis.call('GET', KEYS[16])
if not server then
  return 0
end
redis.call('DEL', KEYS[16])
if ARGV[4] == '1' then
  redis.call('SET', founded, now)
  redis.call('SET', KEYS[17], server, 'PX', ARGV[5])
end
return 1
