-- Queue and publish an ended job once more, under its own id, as if it were new; only one that has no result.
-- ARGV: 4 most open jobs, 5 most open jobs of its owner (0: any number), 6 token of this call.
if redis.call('EXISTS', job) == 0 then
  return {missing(), now}
end
end_if_late()
-- The connection made the call once more because the first answer was lost.
if field('retried_by') == ARGV[6] then
  return {'retried', now, told(standing())}
end
local status = field('status')
if status ~= 'failed' and status ~= 'expired' and status ~= 'canceled' then
  return {'refused', now, status}
end
-- An image whose time is over may be on its way out.
local image_until = number('finished_at_ms') + number('image_retention_ms')
if field('deleted') or field('image_gone') or now >= image_until then
  return {'gone', now}
end
local refused = refusal(field('owner') or nil, tonumber(ARGV[4]), tonumber(ARGV[5]))
if refused then
  return refused
end
count_reason(-1)
redis.call('HDEL', job, 'error', 'timings_ms', 'started_at_ms', 'finished_at_ms', 'expires_at_ms', 'ended_by',
  'ended_as', 'attempt', 'lost', 'strikes')
redis.call('HSET', job, 'retried_by', ARGV[6])
redis.call('PERSIST', job)
redis.call('ZREM', ended, id)
redis.call('ZREM', unarchived, id)
enqueue(now + number('patience_ms'))
local where = standing()
publish(where)
count('retried')
changed()
return {'retried', now, told(where)}
