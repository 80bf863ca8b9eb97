-- Prepended to every script. KEYS and ARGV start the same everywhere:
-- KEYS: the job's record, OPEN, PUBLISHED, PUBLISHED_BULK, LEASED, DRAINED, ENDED, UNARCHIVED, FOUNDED,
-- COUNTED, OWNED, BATCH (which is what every key of a batch begins with), INFERENCE_QUEUE, BULK_QUEUE, BUSY.
-- ARGV: the time (tests only; '' is now), the channel of changes, the job's id.
local job, open, leased, drained, ended = KEYS[1], KEYS[2], KEYS[5], KEYS[6], KEYS[7]
local published = {interactive = KEYS[3], bulk = KEYS[4]}
local unarchived, founded, counted, owned, batches = KEYS[8], KEYS[9], KEYS[10], KEYS[11], KEYS[12]
local queues, busy = {interactive = KEYS[13], bulk = KEYS[14]}, KEYS[15]
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

-- The record keeps only what is not the usual.
local function priority()
  return field('priority') or 'interactive'
end

-- Say why one more open job of this owner (nil: nobody) is not admitted; nil where it is.
local function refusal(owner, most_open, most_owned)
  local depth = redis.call('ZCARD', open)
  if depth >= most_open then
    return {'full', now, depth}
  end
  local mine = owner and most_owned > 0 and tonumber(redis.call('HGET', owned, owner) or 0)
  if mine and mine >= most_owned then
    return {'quota', now, mine}
  end
  return nil
end

-- Count one more or less open job of its owner.
local function count_owned(by)
  local owner = field('owner')
  if owner and redis.call('HINCRBY', owned, owner, by) <= 0 then
    redis.call('HDEL', owned, owner)
  end
end

-- The job's batch counts its members by status, and those that ended without a result by the reason, too.
local function count_in_batch(what, by)
  local name = field('batch')
  if name and redis.call('HINCRBY', batches .. name, what, by) == 0 then
    redis.call('HDEL', batches .. name, what)
  end
end

local function count_reason(by)
  local reason = field('error')
  if reason and field('batch') then
    count_in_batch('reason:' .. cjson.decode(reason).code, by)
  end
end

local function become(status)
  local before = field('status')
  redis.call('HSET', job, 'status', status)
  if before ~= status then
    if before then
      count_in_batch(before, -1)
    end
    count_in_batch(status, 1)
  end
end

local function keep_batch(name, ms)
  for _, part in ipairs({'', ':jobs', ':ended'}) do
    redis.call('PEXPIRE', batches .. name .. part, ms)
  end
end

-- As long as one of its members may yet wait, and is kept after that.
local function keep_batch_longest(name)
  keep_batch(name, number('patience_ms') + number('retention_ms') + number('tombstone_ms'))
end

-- A batch whose every member has ended, and which gets no more of them, is completed, and kept from then on
-- as long as the record of its last member. This is the only place that notes it, once for each time that it
-- happens, and has it told. One that is restored and had been told before is told under the same id.
local function complete_batch(name)
  local key = batches .. name
  local state = redis.call('HMGET', key, 'queued', 'running', 'is_whole', 'completed_at_ms', 'keep_ms')
  if state[1] or state[2] or not state[3] or state[4] then
    return
  end
  redis.call('HSET', key, 'completed_at_ms', now)
  keep_batch(name, state[5])
  local url = redis.call('HGET', key, 'webhook_url')
  if url then
    local data, ends = redis.call('HGETALL', key), tostring(redis.call('LLEN', key .. ':ended'))
    for _, part in ipairs({'id', name, 'ends', ends}) do
      data[#data + 1] = part
    end
    announce_webhook(now, key, name .. '_' .. ends, 'batch.completed', url, cjson.encode(data), state[5])
  end
end

-- Where a job stands whose message is in its queue: how many of its priority are ahead, how many of the other
-- wait, how many jobs, and of these bulk ones, have ended in the last minute, and for how many ms of it some job
-- was open. nil for any other job.
local function standing()
  local mine = priority()
  local ahead = redis.call('ZRANK', published[mine], id)
  if not ahead then
    return nil
  end
  local others = redis.call('ZCARD', published[mine == 'bulk' and 'interactive' or 'bulk'])
  local oldest, lately = math.floor(now / 10000) - 5, {[''] = 0, [':bulk'] = 0}
  local counts = redis.call('HGETALL', drained)
  for at = 1, #counts, 2 do
    local bucket, kind = string.match(counts[at], '^(%d+)(.*)$')
    if tonumber(bucket) >= oldest then
      lately[kind] = lately[kind] + counts[at + 1]
    end
  end
  local worked = 0
  local periods = redis.call('HGETALL', busy)
  for at = 1, #periods, 2 do
    if periods[at] == 'since' then
      worked = worked + math.max(0, now - math.max(periods[at + 1], oldest * 10000))
    elseif tonumber(periods[at]) >= oldest then
      worked = worked + periods[at + 1]
    end
  end
  return {ahead, others, lately[''], lately[':bulk'], worked}
end

-- Put the job's message into its queue, as Celery would through kombu: tests/contract/test_messages.py compares
-- them. The body is [[], {}, {}]: no arguments. `forecast`: the standing that the job's client is told of, if any.
local function publish(forecast)
  local queue = queues[priority()]
  redis.call('LPUSH', queue, cjson.encode({
    body = 'W1tdLCB7fSwge31d',
    ['content-encoding'] = 'utf-8',
    ['content-type'] = 'application/json',
    headers = {task = 'histoqueue.infer', id = id, published_at_ms = now, standing = forecast},
    properties = {
      delivery_mode = 2,
      delivery_info = {exchange = '', routing_key = queue},
      priority = 0,
      body_encoding = 'base64',
      delivery_tag = id .. ':' .. now,
    },
  }))
end

-- Queue the job as one that nobody has tried yet, in every index that it belongs to; its message is due now.
local function enqueue(deadline)
  become('queued')
  redis.call('HSET', job, 'deadline_ms', deadline, 'published_at_ms', now)
  redis.call('ZADD', open, deadline, id)
  if not redis.call('HGET', busy, 'since') then
    redis.call('HSET', busy, 'since', now)
  end
  redis.call('ZADD', published[priority()], now, id)
  count_owned(1)
  local name = field('batch')
  if name then
    redis.call('HDEL', batches .. name, 'completed_at_ms')
    keep_batch_longest(name)
  end
end

-- Note for how long some job was open, in the last intervals of ten seconds: as soon as none is any more.
local function note_idle()
  local since, last = tonumber(redis.call('HGET', busy, 'since') or now), math.floor(now / 10000)
  for interval = math.max(math.floor(since / 10000), last - 5), last do
    local from, to = math.max(since, interval * 10000), math.min(now, (interval + 1) * 10000)
    redis.call('HINCRBY', busy, interval, math.max(0, to - from))
  end
  redis.call('HDEL', busy, 'since')
  for _, old in ipairs(redis.call('HKEYS', busy)) do
    if tonumber(old) < last - 5 then
      redis.call('HDEL', busy, old)
    end
  end
end

-- Take the job out of every index of open jobs.
local function forget()
  if redis.call('ZREM', open, id) == 1 and redis.call('ZCARD', open) == 0 then
    note_idle()
  end
  redis.call('ZREM', published.interactive, id)
  redis.call('ZREM', published.bulk, id)
  redis.call('ZREM', leased, id)
end

-- Since this ledger began: accepted + retried = open + all that ended.
local function count(what)
  redis.call('HINCRBY', counted, what, 1)
end

-- Count the jobs that ended in each ten seconds, all and the bulk ones, for the two minutes that the drain
-- rate is taken over.
local function count_drained()
  local bucket = math.floor(now / 10000)
  if redis.call('HINCRBY', drained, bucket, 1) == 1 then
    for _, old in ipairs(redis.call('HKEYS', drained)) do
      if tonumber(string.match(old, '^%d+')) < bucket - 12 then
        redis.call('HDEL', drained, old)
      end
    end
  end
  if priority() == 'bulk' then
    redis.call('HINCRBY', drained, bucket .. ':bulk', 1)
  end
end

-- Note in the job's batch that it has ended. A job that is retried ends again: only its last number counts.
-- Whoever has more to note of that end says so in `is_more_to_note`, and completes the batch then.
local is_more_to_note = false
local function note_end_in_batch()
  local name = field('batch')
  if name then
    redis.call('HSET', job, 'ended_as', redis.call('RPUSH', batches .. name .. ':ended', id))
    count_reason(1)
    keep_batch_longest(name)
    if not is_more_to_note then
      complete_batch(name)
    end
  end
end

-- The record as its readers want it, which know it by its id.
local function record()
  local found = redis.call('HGETALL', job)
  found[#found + 1] = 'id'
  found[#found + 1] = id
  return found
end

-- Tell the listeners, and of a job that has ended its record, too: whoever waits for it then need not read it.
local function changed()
  redis.call('HINCRBY', job, 'version', 1)
  local notice = id .. ' ' .. field('status')
  redis.call('PUBLISH', changes, is_open() and notice or notice .. ' ' .. cjson.encode(record()))
end

-- The same, with where the job stands, if it does.
local function told(where)
  local found = record()
  if where then
    found[#found + 1] = 'standing'
    found[#found + 1] = cjson.encode(where)
  end
  return found
end

-- The only way into a final status: out of every index in the same call, and never twice.
local function finish(status, name, value)
  become(status)
  redis.call('HSET', job, 'finished_at_ms', now, 'expires_at_ms', now + number('retention_ms'))
  redis.call('HDEL', job, 'token')
  if name then
    redis.call('HSET', job, name, value)
  end
  forget()
  count_owned(-1)
  redis.call('ZADD', ended, now + number('image_retention_ms'), id)
  redis.call('ZADD', unarchived, now, id)
  if not field('cached') then
    count_drained()
  end
  count(status)
  note_end_in_batch()
  redis.call('PEXPIRE', job, number('retention_ms') + number('tombstone_ms'))
  changed()
  local url = field('webhook_url')
  if url then
    announce_webhook(now, job, id .. '_' .. field('version') .. '_' .. now, 'job.' .. status, url,
      cjson.encode(record()), field('retention_ms'))
  end
end

local function fail(status, code, detail)
  finish(status, 'error', cjson.encode({code = code, detail = detail}))
end

-- The next look at the job is at the given time; there is no message for it.
local function hold_until(time)
  redis.call('ZREM', published[priority()], id)
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
  become('queued')
  redis.call('HDEL', job, 'token')
  return false
end
