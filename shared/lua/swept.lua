-- End a comparison of the object store with this ledger. One that lost its data meanwhile has lost the right,
-- too.
-- KEYS: 15 SWEEPING, 16 SWEPT. ARGV: 4 '1' if the ledger is whole now, 5 ms until the next one is due.
if redis.call('DEL', KEYS[15]) == 0 then
  return 0
end
if ARGV[4] == '1' then
  redis.call('SET', founded, now)
  redis.call('SET', KEYS[16], now, 'PX', ARGV[5])
end
return 1
