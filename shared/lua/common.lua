-- Prepended to every script. KEYS and ARGV start the same everywhere:
-- KEYS: the job's record, OPEN, PUBLISHED, LEASED, DRAINED, ENDED, UNARCHIVED, FOUNDED, COUNTED.
-- ARGV: the time (tests only; '' is now), the channel of changes, the job's id.
local job, open, published, leased, drained, ended = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local unarchived, founded, counted = KEYS[7], KEYS[8], KEYS[9]
local changes, id = ARGV[2], ARGV[3]

-- Milliseconds since the epoch by the one clock that all agree on.
local clock = redis.call('TIME')
local now = tonumber(ARGV[1]) or clock[1] * 1000 + math.floor(clock[2] / 1000)

local function field(name)
  return redis.call('HGET', job, name)
end

-- What an id without a record is: never issued, as far as a ledger can tell that has all its data.
local function missing()
  return redis.call('EXISTS', founded) == 1 and 'unknown' or 'rebuilding'
end

local function number(name)
  return tonumber(field(name) or 0)
end

local function is_open()
  local status = field('status')
  return status == 'queued' or status == 'running'
end

-- The open jobs of one API key. Its name follows from the record, so it cannot be one of KEYS.
local function open_of(owner)
  return open .. ':' .. owner
end

-- Say why one more open job of this owner (nil: nobody) is not admitted; nil where it is.
local function refusal(owner, most_open, most_owned)
  local depth = redis.call('ZCARD', open)
  if depth >= most_open then
    return {'full', now, depth}
  end
  local owned = owner and most_owned > 0 and redis.call('SCARD', open_of(owner)) or 0
  if owner and most_owned > 0 and owned >= most_owned then
    return {'quota', now, owned}
  end
  return nil
end

-- Queue the job as one that nobody has tried yet, in every index that it belongs to; its message is due now.
local function enqueue(owner, deadline)
  redis.call('HSET', job, 'status', 'queued', 'deadline_ms', deadline, 'published_at_ms', now,
    'attempt', 0, 'lost', 0, 'strikes', 0)
  redis.call('ZADD', open, deadline, id)
  redis.call('ZADD', published, now, id)
  if owner then
    redis.call('SADD', open_of(owner), id)
  end
end

local function forget()
  local owner = field('owner')
  if owner then
    redis.call('SREM', open_of(owner), id)
  end
  redis.call('ZREM', open, id)
  redis.call('ZREM', published, id)
  redis.call('ZREM', leased, id)
end

local function changed()
  redis.call('HINCRBY', job, 'version', 1)
  redis.call('PUBLISH', changes, id)
end

-- Since this ledger began: accepted + retried = open + all that ended.
local function count(what)
  redis.call('HINCRBY', counted, what, 1)
end

-- Count the jobs that ended in each ten seconds, for the two minutes that the drain rate is taken over.
local function count_drained()
  local bucket = math.floor(now / 10000)
  if redis.call('HINCRBY', drained, bucket, 1) == 1 then
    for _, old in ipairs(redis.call('HKEYS', drained)) do
      if tonumber(old) < bucket - 12 then
        redis.call('HDEL', drained, old)
      end
    end
  end
end

-- The only way into a final status: out of every index in the same call, and never twice.
local function finish(status, name, value)
  redis.call('HSET', job, 'status', status, 'finished_at_ms', now,
    'expires_at_ms', now + number('retention_ms'), 'token', '')
  if name then
    redis.call('HSET', job, name, value)
  end
  forget()
  redis.call('ZADD', ended, now + number('image_retention_ms'), id)
  redis.call('ZADD', unarchived, now, id)
  count_drained()
  count(status)
  redis.call('PEXPIRE', job, number('retention_ms') + number('tombstone_ms'))
  changed()
end

local function fail(status, code, detail)
  finish(status, 'error', cjson.encode({code = code, detail = detail}))
end

-- The next look at the job is at the given time; there is no message for it.
local function hold_until(time)
  redis.call('ZREM', published, id)
  redis.call('ZADD', leased, time, id)
end

local function holds(token)
  return field('status') == 'running' and field('token') == token
end

local function lease_is_live()
  return field('status') == 'running' and number('lease_until_ms') > now
end

-- A job may be late while a worker holds it: the deadline bounds its wait, the lease bounds its run.
local function end_if_late()
  if is_open() and now > number('deadline_ms') and not lease_is_live() then
    fail('expired', 'DEADLINE_EXCEEDED',
      'The job waited in the queue longer than it was allowed to. Submit it again, with a longer expires_in.')
    return true
  end
  return false
end

-- Book the loss of the worker that held the job; ends it where too many were lost.
local function lose_worker(most)
  local lost = redis.call('HINCRBY', job, 'lost', 1)
  if lost >= most then
    fail('failed', 'ATTEMPTS_EXHAUSTED',
      'Every worker that ran this job was lost (' .. lost .. ' times). ' ..
      'Look at the workers, then submit it again.')
    return true
  end
  redis.call('HSET', job, 'status', 'queued', 'token', '')
  return false
end

local function record()
  return redis.call('HGETALL', job)
end
