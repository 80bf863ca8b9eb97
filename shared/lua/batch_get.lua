-- Read a batch; one that nobody has added to for long gets no more members.
-- ARGV: 4 id of the batch, 5 '1': it gets no more members now, 6 ms after which that is so by itself.
local key = batches .. ARGV[4]
local created, restored = unpack(redis.call('HMGET', key, 'created_at_ms', 'restored_at_ms'))
if not created then
  return {missing(), now}
end
-- One that is being restored has not all of its members yet.
if ARGV[5] == '1' or now - tonumber(restored or created) > tonumber(ARGV[6]) then
  if redis.call('HSET', key, 'is_whole', 1) == 1 then
    complete_batch(ARGV[4])
  end
end
return {'', now, redis.call('HGETALL', key), redis.call('LLEN', key .. ':ended')}
