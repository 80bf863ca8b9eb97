-- Note that the image of an ended job is gone; or, past its retention, drop what is known of its result.
-- ARGV: 4 the spec to keep once the result is dropped; '' while only the image is gone.
if redis.call('EXISTS', job) == 0 or is_open() then
  redis.call('ZREM', ended, id)
  return 0
end
if ARGV[4] == '' then
  redis.call('HSET', job, 'image_gone', 1)
  -- A deleted job is cleaned once more, after whoever was just archiving it has come to an end.
  redis.call('ZADD', ended, field('deleted') and now + 60000 or number('expires_at_ms'), id)
elseif not field('deleted') and now <= number('expires_at_ms') then
  -- Somebody else noted the image in this moment: the result's time has not come.
  return 0
else
  count_reason(-1)
  redis.call('HDEL', job, 'result', 'error', 'timings_ms', 'webhook_url')
  redis.call('HSET', job, 'spec', ARGV[4])
  forget_webhooks(job)
  redis.call('ZREM', ended, id)
end
return 1
