-- Begin a batch, or find the one that its idempotency key began.
-- KEYS[16]: the idempotency key, where there is one.
-- ARGV: 4 id of the batch, 5 owner ('': nobody), 6 ms that it is kept once completed, 7 ms before that,
-- 8 retention ms, 9 fingerprint, 10 when it was begun (ms; 0: now), 11 who is told of its end ('': nobody),
-- 12 whether it may only be found (1 or 0).
local key, begun = batches .. ARGV[4], tonumber(ARGV[10])
if KEYS[16] then
  local fingerprint, first = string.match(redis.call('GET', KEYS[16]) or '', '^(%S+) (%S+)$')
  if first and redis.call('HEXISTS', batches .. first, 'created_at_ms') == 1 then
    if fingerprint ~= ARGV[9] then
      return {'conflict'}
    end
    if begun == 0 then
      -- More members may come: until that is over, no end of one of them is the batch's.
      redis.call('HDEL', batches .. first, 'is_whole')
    end
    return {'replayed', first}
  end
  -- One that lost its data cannot tell whether the key is new.
  if begun == 0 and redis.call('EXISTS', founded) == 0 then
    return {'rebuilding'}
  end
end
if ARGV[12] == '1' then
  return {'full'}
end
if KEYS[16] then
  redis.call('SET', KEYS[16], ARGV[9] .. ' ' .. ARGV[4], 'PX', tonumber(ARGV[6]) + tonumber(ARGV[7]))
end
redis.call('HSET', key, 'created_at_ms', begun > 0 and begun or now, 'owner', ARGV[5], 'keep_ms', ARGV[6],
  'retention_ms', ARGV[8])
if begun > 0 then
  redis.call('HSET', key, 'restored_at_ms', now)
end
if ARGV[11] ~= '' then
  redis.call('HSET', key, 'webhook_url', ARGV[11])
end
keep_batch(ARGV[4], ARGV[7])
return {'created', ARGV[4]}
