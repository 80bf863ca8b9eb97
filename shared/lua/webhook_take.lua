-- Give out deliveries whose time has come, no more of a host at a time than it has places.
-- ARGV: 1 time, 2 most hosts, 3 places of a host, 4 most of one host now, 5 ms that a message may be under
-- way, 6 one host ('': each whose time has come).
local now, places, most = tonumber(ARGV[1]) or webhook_now(), tonumber(ARGV[3]), tonumber(ARGV[4])
local hosts = {ARGV[6]}
if ARGV[6] == '' then
  hosts = redis.call('ZRANGE', webhook_hosts, '-inf', now, 'BYSCORE', 'LIMIT', 0, ARGV[2])
end
local taken = {}
for _, host in ipairs(hosts) do
  local due, flying = webhook_due .. host, webhook_flying .. host
  -- Its message was lost, or whoever was making it.
  for _, id in ipairs(redis.call('ZRANGE', flying, '-inf', now, 'BYSCORE')) do
    redis.call('ZREM', flying, id)
    redis.call('ZADD', due, now, id)
  end
  local free = math.min(most, places - redis.call('ZCARD', flying))
  if free > 0 then
    for _, id in ipairs(redis.call('ZRANGE', due, '-inf', now, 'BYSCORE', 'LIMIT', 0, free)) do
      redis.call('ZREM', due, id)
      redis.call('ZADD', flying, now + tonumber(ARGV[5]), id)
      taken[#taken + 1] = {id, host}
    end
  end
  -- With every place taken, nothing is to be done before the first of them lapses or is given back.
  local looks = {redis.call('ZRANGE', flying, 0, 0, 'WITHSCORES')[2]}
  if redis.call('ZCARD', flying) < places then
    looks[#looks + 1] = redis.call('ZRANGE', due, 0, 0, 'WITHSCORES')[2]
  end
  local look
  for _, time in ipairs(looks) do
    look = math.min(look or math.huge, tonumber(time))
  end
  if look then
    redis.call('ZADD', webhook_hosts, look, host)
  else
    redis.call('ZREM', webhook_hosts, host)
  end
end
return taken
