-- Book that the job has now killed a healthy engine so many times while it was alone in it. The count comes
-- from the caller, since a call whose answer was lost is made again.
-- ARGV: 4 token, 5 how often by now.
if not holds(ARGV[4]) then
  return 0
end
redis.call('HSET', job, 'strikes', ARGV[5])
return 1
