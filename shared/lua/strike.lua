-- Book that the job killed a healthy engine while it was alone in it. Returns how often, 0 if not ours to say.
-- ARGV: 4 token.
if not holds(ARGV[4]) then
  return 0
end
return redis.call('HINCRBY', job, 'strikes', 1)
