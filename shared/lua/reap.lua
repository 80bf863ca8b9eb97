-- Look after one job that seems to have neither a message nor a worker, and publish it again where it has none.
-- Only ever updates what is there.
-- ARGV: 4 most lost workers; when the message that leaves each queue next was published (ms; '': it is empty), of
-- 5 interactive and 6 bulk jobs; 7 ms after which a message that has left its queue is taken to be lost.

-- Ended, or no record at all.
if not is_open() then
  forget()
  return 'dropped'
end
if end_if_late() then
  return 'ended'
end
if field('status') == 'running' then
  if lease_is_live() then
    return 'kept'
  end
  if lose_worker(tonumber(ARGV[4])) then
    return 'ended'
  end
  changed()
else
  local due = redis.call('ZSCORE', leased, id)
  if due and tonumber(due) > now then
    return 'kept'
  end
  -- Every message that was published before it has left its queue.
  local head = tonumber(priority() == 'bulk' and ARGV[6] or ARGV[5]) or now
  if not due and number('published_at_ms') >= math.min(now, head) - tonumber(ARGV[7]) then
    return 'kept'
  end
end
redis.call('HSET', job, 'published_at_ms', now)
redis.call('ZREM', leased, id)
redis.call('ZADD', published[priority()], now, id)
publish()
return 'published'
