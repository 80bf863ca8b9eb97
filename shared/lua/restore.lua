-- Take in a job that ended before this ledger lost its data; a member of a batch only where that is known again.
-- KEYS[16]: the idempotency key that it came with, if any.
-- ARGV: 4 status, 5 when its image is to go (ms), 6 ms that the record is kept, 7 fingerprint, 8 and on: names and
-- values of the record.
if redis.call('EXISTS', job) == 1 then
  return 0
end
for at = 8, #ARGV, 2 do
  if ARGV[at] == 'batch' and redis.call('HEXISTS', batches .. ARGV[at + 1], 'created_at_ms') == 0 then
    return 0
  end
end
for at = 8, #ARGV, 2 do
  redis.call('HSET', job, ARGV[at], ARGV[at + 1])
end
become(ARGV[4])
local name = field('batch')
if name then
  redis.call('RPUSH', batches .. name .. ':jobs', id)
  redis.call('HSET', job, 'ended_as', redis.call('RPUSH', batches .. name .. ':ended', id))
  count_reason(1)
  keep_batch_longest(name)
end
redis.call('ZADD', ended, ARGV[5], id)
redis.call('PEXPIRE', job, ARGV[6])
if KEYS[16] then
  redis.call('SET', KEYS[16], ARGV[7] .. ' ' .. id, 'PX', ARGV[6], 'NX')
end
count('accepted')
count(ARGV[4])
return 1
