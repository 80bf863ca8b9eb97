-- Forget a job at its owner's wish: an open one is canceled, and what is known of its result is dropped now.
-- ARGV: 4 the spec to keep ('': there was no record a moment ago).
if redis.call('EXISTS', job) == 0 or ARGV[4] == '' then
  return {missing()}
end
local was_open = is_open()
if was_open then
  is_more_to_note = true
  finish('canceled')
end
if not field('deleted') then
  count_in_batch(field('status'), -1)
  count_in_batch('deleted', 1)
  count_reason(-1)
end
if was_open and field('batch') then
  complete_batch(field('batch'))
end
redis.call('HSET', job, 'deleted', 1, 'spec', ARGV[4], 'expires_at_ms', now - 1)
redis.call('HDEL', job, 'result', 'error', 'timings_ms', 'image_gone', 'ended_as', 'webhook_url')
forget_webhooks(job)
redis.call('ZREM', unarchived, id)
redis.call('ZADD', ended, now - 1, id)
changed()
return {'deleted'}
