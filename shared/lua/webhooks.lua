-- Prepended to every script, after the names of the keys (`webhook`, `webhook_hosts` …, as shared/keys.py has
-- them): what is to be told to webhooks. A subject is the key of the job or the batch that a delivery tells of;
-- which deliveries are its own stands in its field `webhooks`.

local function webhook_now()
  local clock = redis.call('TIME')
  return clock[1] * 1000 + math.floor(clock[2] / 1000)
end

local function webhook_of(id)
  return webhook .. id
end

-- Have a host looked at by this time.
local function wake_webhook_host(host, time)
  redis.call('ZADD', webhook_hosts, 'LT', time, host)
end

local function count_webhook(what)
  redis.call('HINCRBY', webhooks_counted, what, 1)
end

-- Take a delivery out of everything that leads to another attempt.
local function ground_webhook(id, host)
  redis.call('ZREM', webhook_due .. host, id)
  redis.call('ZREM', webhook_flying .. host, id)
  redis.call('ZREM', webhooks_pending, id)
end

-- Have an event delivered, in the same call that makes it true: no crash can come in between. A host is one for
-- each API key that names it.
-- `data` is the subject as it is now; the delivery is forgotten after `kept_ms` at the latest.
local function announce_webhook(now, subject, id, event, url, data, kept_ms)
  if redis.call('HGET', subject, 'webhook_off') then
    return
  end
  local host = string.lower(string.match(url, '^%a+://([^/?#]+)') or '')
  local owner = redis.call('HGET', subject, 'owner')
  if owner and owner ~= '' then
    host = owner .. ' ' .. host
  end
  redis.call('HSET', webhook_of(id), 'id', id, 'subject', subject, 'event', event, 'url', url, 'host', host,
    'data', data, 'state', 'pending', 'attempt', 0, 'announced_at_ms', now, 'since_ms', now, 'due_ms', now,
    'token', '', 'lease_until_ms', 0, 'tries', '')
  redis.call('PEXPIRE', webhook_of(id), kept_ms)
  local others = redis.call('HGET', subject, 'webhooks')
  redis.call('HSET', subject, 'webhooks', others and (others .. ' ' .. id) or id)
  redis.call('ZADD', webhook_due .. host, now, id)
  redis.call('ZADD', webhooks_pending, now, id)
  wake_webhook_host(host, now)
end

-- The ids of a subject's deliveries, oldest first.
local function webhooks_of(subject)
  return string.gmatch(redis.call('HGET', subject, 'webhooks') or '', '%S+')
end

local function forget_webhooks(subject)
  for id in webhooks_of(subject) do
    ground_webhook(id, redis.call('HGET', webhook_of(id), 'host') or '')
    redis.call('DEL', webhook_of(id))
  end
  redis.call('HDEL', subject, 'webhooks')
end
