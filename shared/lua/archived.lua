-- Note that these jobs' outcomes are in the object store, as of these versions.
-- Return those that were deleted or retried meanwhile.
-- ARGV: 4 prefix of records, 5 and on: ids, each with its version.
local unwanted = {}
for at = 5, #ARGV, 2 do
  local each = ARGV[at]
  local record = redis.call('HMGET', ARGV[4] .. each, 'status', 'version', 'deleted')
  local status, version, is_deleted = unpack(record)
  if is_deleted or status == 'queued' or status == 'running' then
    unwanted[#unwanted + 1] = each
  elseif version and version ~= ARGV[at + 1] then
    -- It was retried and has ended anew: what was put there may have come over its later outcome.
    redis.call('ZADD', unarchived, now, each)
  else
    redis.call('ZREM', unarchived, each)
  end
end
return unwanted
