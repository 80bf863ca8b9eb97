-- Write the outcome of the worker that holds the job; anybody else's comes too late.
-- KEYS[16]: where the answer is looked up by later jobs, if it may be.
-- ARGV: 4 token, 5 status, 6 'result' or 'error', 7 its value, 8 timings.
if not holds(ARGV[4]) then
  -- The same worker writes the same once more because the first answer was lost.
  return (field('ended_by') == ARGV[4] and field('status') == ARGV[5]) and 1 or 0
end
redis.call('HSET', job, 'timings_ms', ARGV[8], 'ended_by', ARGV[4])
finish(ARGV[5], ARGV[6], ARGV[7])
if KEYS[16] then
  redis.call('SET', KEYS[16], id, 'PX', number('retention_ms'))
end
return 1
