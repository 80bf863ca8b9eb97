-- Give the job to one worker under a lease; the attempt is counted before any risky work.
-- ARGV: 4 token, 5 lease ms, 6 most ms of one run, 7 most lost workers.

-- Ended, or no record at all.
if not is_open() then
  return {'final'}
end
if lease_is_live() then
  -- The same worker asks again because the first answer was lost.
  if field('token') == ARGV[4] then
    return {'claimed', record()}
  end
  return {'leased'}
end
if end_if_late() then
  return {'final'}
end
if field('status') == 'running' and lose_worker(tonumber(ARGV[7])) then
  return {'final'}
end
local until_ms = now + tonumber(ARGV[5])
become('running')
redis.call('HSET', job, 'token', ARGV[4], 'lease_until_ms', until_ms,
  'run_until_ms', now + tonumber(ARGV[6]), 'started_at_ms', now)
redis.call('HINCRBY', job, 'attempt', 1)
hold_until(until_ms)
changed()
return {'claimed', record()}
