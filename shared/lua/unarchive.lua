-- Note that the outcome of an ended job is about to leave the object store: after a while it is to be put there
-- again, unless the job is retried before.
-- ARGV: 4 ms.
if redis.call('EXISTS', job) == 0 or is_open() or field('deleted') then
  return 0
end
redis.call('ZADD', unarchived, now + tonumber(ARGV[4]), id)
return 1
