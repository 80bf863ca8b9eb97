-- Accept a job, unless it came too late, is a repetition, or is one too many.
-- KEYS[7]: the idempotency key, where there is one.
-- ARGV: 4 refuse after this time (ms, 0: never), 5 most open jobs, 6 spec, 7 ms it may wait, 8 retention ms,
-- 9 tombstone ms, 10 image retention ms, 11 fingerprint, 12 prefix of records.
local not_after, limit = tonumber(ARGV[4]), tonumber(ARGV[5])
local repeatable = KEYS[7] ~= nil

-- The caller has given up by now (this call lay in a hung server's socket): it was told "not accepted".
if not_after > 0 and now > not_after then
  return {'late', now}
end
if redis.call('EXISTS', job) == 1 then
  return {'created', now, record()}
end
if repeatable then
  local known = redis.call('GET', KEYS[7])
  if known then
    local fingerprint, first = string.match(known, '^(%S+) (%S+)$')
    if redis.call('EXISTS', ARGV[12] .. first) == 1 then
      if fingerprint ~= ARGV[11] then
        return {'conflict', now}
      end
      return {'replayed', now, first}
    end
  end
end
local depth = redis.call('ZCARD', open)
if depth >= limit then
  return {'full', now, depth}
end

redis.call('HSET', job, 'id', id, 'status', 'queued', 'version', 1, 'spec', ARGV[6], 'created_at_ms', now,
  'deadline_ms', now + tonumber(ARGV[7]), 'published_at_ms', now, 'retention_ms', ARGV[8],
  'tombstone_ms', ARGV[9], 'image_retention_ms', ARGV[10], 'attempt', 0, 'lost', 0, 'strikes', 0, 'token', '')
redis.call('ZADD', open, now + tonumber(ARGV[7]), id)
redis.call('ZADD', published, now, id)
if repeatable then
  redis.call('SET', KEYS[7], ARGV[11] .. ' ' .. id, 'PX', tonumber(ARGV[7]) + tonumber(ARGV[8]) + tonumber(ARGV[9]))
end
return {'created', now, record()}
