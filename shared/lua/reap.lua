-- Look after one job that seems to have neither a message nor a worker. Only ever updates what is there.
-- ARGV: 4 watermark (ms): every message published before it has left the queue, 5 most lost workers.
if redis.call('EXISTS', job) == 0 or not is_open() then
  forget()
  return {'dropped', now}
end
if end_if_late() then
  return {'ended', now}
end
if field('status') == 'running' then
  if lease_is_live() then
    redis.call('ZADD', leased, 'XX', number('lease_until_ms'), id)
    return {'kept', now}
  end
  if lose_worker(tonumber(ARGV[5])) then
    return {'ended', now}
  end
  changed()
else
  local due = redis.call('ZSCORE', leased, id)
  if due and tonumber(due) > now then
    return {'kept', now}
  end
  if not due and number('published_at_ms') >= tonumber(ARGV[4]) then
    return {'kept', now}
  end
end
redis.call('HSET', job, 'published_at_ms', now)
redis.call('ZREM', leased, id)
redis.call('ZADD', published, now, id)
return {'publish', now}
