-- Give one attempt at a delivery to one sender; it is counted before anything is sent.
-- ARGV: 1 time, 2 id, 3 host, 4 token, 5 lease ms.
local now, id, host = tonumber(ARGV[1]) or webhook_now(), ARGV[2], ARGV[3]
local key = webhook_of(id)
local state, token, lease = unpack(redis.call('HMGET', key, 'state', 'token', 'lease_until_ms'))
if state ~= 'pending' then
  -- Deleted, or delivered by somebody else.
  ground_webhook(id, host)
  return {}
end
if tonumber(lease) > now then
  -- The same sender asks again because the first answer was lost.
  return token == ARGV[4] and redis.call('HGETALL', key) or {}
end
if not redis.call('ZSCORE', webhook_flying .. host, id) then
  -- An old message: the delivery waits for its retry, or for its place.
  return {}
end
local until_ms = now + tonumber(ARGV[5])
redis.call('HSET', key, 'token', ARGV[4], 'lease_until_ms', until_ms, 'started_at_ms', now)
redis.call('HINCRBY', key, 'attempt', 1)
redis.call('ZREM', webhook_due .. host, id)
redis.call('ZADD', webhook_flying .. host, until_ms, id)
wake_webhook_host(host, until_ms)
return redis.call('HGETALL', key)
