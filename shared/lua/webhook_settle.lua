-- Note how an attempt ended; anybody's but its sender's comes too late.
-- ARGV: 1 time, 2 id, 3 token, 4 'delivered', 'pending' (it will be tried again), 'failed' or 'disabled',
-- 5 the attempt as JSON, 6 ms until the next one, 7 most attempts that are remembered.
local now, id, outcome = tonumber(ARGV[1]) or webhook_now(), ARGV[2], ARGV[4]
local key = webhook_of(id)
local token, host, subject, tries = unpack(redis.call('HMGET', key, 'token', 'host', 'subject', 'tries'))
if token ~= ARGV[3] then
  return 0
end
local kept = {ARGV[5]}
for try in string.gmatch(tries, '[^\n]+') do
  kept[#kept + 1] = try
end
-- Newest first.
redis.call('HSET', key, 'state', outcome, 'token', '', 'lease_until_ms', 0,
  'tries', table.concat(kept, '\n', 1, math.min(#kept, tonumber(ARGV[7]))))
redis.call('ZREM', webhook_flying .. host, id)
count_webhook(outcome == 'delivered' and 'accepted' or 'refused')
if outcome == 'pending' then
  local due = now + tonumber(ARGV[6])
  redis.call('HSET', key, 'due_ms', due)
  redis.call('ZADD', webhook_due .. host, due, id)
else
  ground_webhook(id, host)
  redis.call('HDEL', key, 'due_ms')
  count_webhook(outcome)
end
if outcome == 'disabled' and redis.call('EXISTS', subject) == 1 then
  redis.call('HSET', subject, 'webhook_off', 1)
  for other in webhooks_of(subject) do
    if redis.call('HGET', webhook_of(other), 'state') == 'pending' then
      ground_webhook(other, host)
      redis.call('HSET', webhook_of(other), 'state', 'disabled', 'token', '')
      redis.call('HDEL', webhook_of(other), 'due_ms')
      count_webhook('disabled')
    end
  end
end
-- A place is free.
wake_webhook_host(host, now)
return 1
