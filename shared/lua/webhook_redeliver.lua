-- Make a subject's newest delivery once more, at its owner's wish, under the same id and with all its time
-- before it.
-- ARGV: 1 time, 2 subject.
local now, subject = tonumber(ARGV[1]) or webhook_now(), ARGV[2]
local id
for each in webhooks_of(subject) do
  id = each
end
local key = webhook_of(id or '')
if not id or redis.call('EXISTS', key) == 0 then
  return {}
end
redis.call('HDEL', subject, 'webhook_off')
local host = redis.call('HGET', key, 'host')
redis.call('HSET', key, 'state', 'pending', 'since_ms', now)
redis.call('ZADD', webhooks_pending, now, id)
-- One that is being made this moment is not made twice at the same time.
if not redis.call('ZSCORE', webhook_flying .. host, id) then
  redis.call('HSET', key, 'due_ms', now)
  redis.call('ZADD', webhook_due .. host, now, id)
  wake_webhook_host(host, now)
end
return redis.call('HGETALL', key)
