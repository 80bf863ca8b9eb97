-- Queue an ended job once more, under its own id, as if it were new; only one that has no result.
-- ARGV: 4 most open jobs, 5 most open jobs of its owner (0: any number).
if redis.call('EXISTS', job) == 0 then
  return {missing(), now}
end
end_if_late()
local status = field('status')
if status ~= 'failed' and status ~= 'expired' and status ~= 'canceled' then
  return {'refused', now, status}
end
-- An image whose time is over may be on its way out.
local image_until = redis.call('ZSCORE', ended, id)
if field('deleted') or field('image_gone') or now >= tonumber(image_until or 0) then
  return {'gone', now}
end
local depth = redis.call('ZCARD', open)
if depth >= tonumber(ARGV[4]) then
  return {'full', now, depth}
end
local owner, most_owned = field('owner'), tonumber(ARGV[5])
if owner then
  local owned = redis.call('SCARD', open_of(owner))
  if most_owned > 0 and owned >= most_owned then
    return {'quota', now, owned}
  end
  redis.call('SADD', open_of(owner), id)
end
local deadline = now + number('patience_ms')
redis.call('HDEL', job, 'error', 'timings_ms', 'started_at_ms', 'finished_at_ms', 'expires_at_ms', 'ended_by')
redis.call('HSET', job, 'status', 'queued', 'deadline_ms', deadline, 'published_at_ms', now, 'attempt', 0,
  'lost', 0, 'strikes', 0)
redis.call('PERSIST', job)
count('retried')
redis.call('ZREM', ended, id)
redis.call('ZREM', unarchived, id)
redis.call('ZADD', open, deadline, id)
redis.call('ZADD', published, now, id)
changed()
return {'retried', now, record()}
