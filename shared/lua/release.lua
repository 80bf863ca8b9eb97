-- Hand the job back unharmed: no attempt is used up, and the reaper publishes it after the hold-off.
-- ARGV: 4 token, 5 hold-off ms.
if not holds(ARGV[4]) then
  return 0
end
become('queued')
redis.call('HDEL', job, 'token')
redis.call('HINCRBY', job, 'attempt', -1)
hold_until(now + tonumber(ARGV[5]))
changed()
return 1
