-- Prolong the lease of the worker that holds the job, up to the longest run of one claim.
-- ARGV: 4 token, 5 lease ms.
if not holds(ARGV[4]) or now > number('run_until_ms') then
  return 0
end
local until_ms = math.min(now + tonumber(ARGV[5]), number('run_until_ms'))
redis.call('HSET', job, 'lease_until_ms', until_ms)
redis.call('ZADD', leased, 'XX', until_ms, id)
return 1
