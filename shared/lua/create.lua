-- Accept a job and publish its message, unless it came too late, is a repetition, or is one too many.
-- KEYS[16]: the idempotency key, where there is one.
-- ARGV: 4 refuse after this time (ms, 0: never), 5 most open jobs, 6 spec, 7 ms it may wait, 8 retention ms,
-- 9 tombstone ms, 10 image retention ms, 11 fingerprint, 12 prefix of records,
-- 13 when it was accepted (ms; 0: now), 14 owner ('': nobody), 15 most open jobs of its owner (0: any),
-- 16 'bulk' or '', 17 the batch that it belongs to ('': none), 18 a job whose result is this one's too
-- ('': none): it then ends in the same call, and takes nobody's place, 19 who is told how it ended.
local not_after, limit = tonumber(ARGV[4]), tonumber(ARGV[5])
local repeatable = KEYS[16] ~= nil
local accepted = tonumber(ARGV[13])
local created = accepted > 0 and accepted or now

-- The caller has given up by now (this call lay in a hung server's socket): it was told "not accepted".
if not_after > 0 and now > not_after then
  return {'late', now}
end
if redis.call('EXISTS', job) == 1 then
  return {'created', now, told(standing())}
end
if repeatable then
  local known = redis.call('GET', KEYS[16])
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
-- A ledger that lost its data cannot tell whether the key is new; one that restores a job knows that it is.
if repeatable and accepted == 0 and redis.call('EXISTS', founded) == 0 then
  return {'rebuilding', now}
end
local answer = nil
if ARGV[18] ~= '' then
  answer = redis.call('HGET', ARGV[12] .. ARGV[18], 'result')
  if not answer then
    return {'unanswered', now}
  end
end
local owner = ARGV[14] ~= '' and ARGV[14] or nil
local refused = not answer and refusal(owner, limit, tonumber(ARGV[15]))
if refused then
  return refused
end

-- A restored job may have had any number of versions that its readers still know.
local version = accepted > 0 and math.floor(now / 1000) or 1
redis.call('HSET', job, 'version', version, 'spec', ARGV[6], 'created_at_ms', created,
  'patience_ms', ARGV[7], 'retention_ms', ARGV[8], 'tombstone_ms', ARGV[9], 'image_retention_ms', ARGV[10])
for name, value in pairs({owner = ARGV[14], priority = ARGV[16], batch = ARGV[17],
  webhook_url = ARGV[19]}) do
  if value ~= '' then
    redis.call('HSET', job, name, value)
  end
end
if ARGV[17] ~= '' then
  redis.call('RPUSH', batches .. ARGV[17] .. ':jobs', id)
end
enqueue(created + tonumber(ARGV[7]))
if repeatable then
  redis.call('SET', KEYS[16], ARGV[11] .. ' ' .. id,
    'PX', tonumber(ARGV[7]) + tonumber(ARGV[8]) + tonumber(ARGV[9]))
end
count('accepted')
if answer then
  redis.call('HSET', job, 'cached', 1)
  finish('succeeded', 'result', answer)
  return {'created', now, record()}
end
local where = standing()
publish(where)
return {'created', now, told(where)}
