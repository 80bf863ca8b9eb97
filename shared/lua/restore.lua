-- Take in a member of a batch that ended before this ledger lost its data.
-- ARGV: 4 status, 5 when its image is to go (ms), 6 ms that the record is kept, 7 and on: names and values of
-- the record.
if redis.call('EXISTS', job) == 1 then
  return 0
end
for at = 7, #ARGV, 2 do
  redis.call('HSET', job, ARGV[at], ARGV[at + 1])
end
become(ARGV[4])
local key = batches .. field('batch')
redis.call('RPUSH', key .. ':jobs', id)
redis.call('HSET', job, 'ended_as', redis.call('RPUSH', key .. ':ended', id))
count_reason(1)
redis.call('ZADD', ended, ARGV[5], id)
redis.call('PEXPIRE', job, ARGV[6])
keep_batch_longest(field('batch'))
count('accepted')
count(ARGV[4])
return 1
