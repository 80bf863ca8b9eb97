-- Note that these jobs' outcomes are in the object store.
-- Return those that were deleted or retried meanwhile.
-- ARGV: 4 prefix of records, 5 and on: ids.
local unwanted = {}
for number = 5, #ARGV do
  redis.call('ZREM', unarchived, ARGV[number])
  local status, is_deleted = unpack(redis.call('HMGET', ARGV[4] .. ARGV[number], 'status', 'deleted'))
  if is_deleted or status == 'queued' or status == 'running' then
    unwanted[#unwanted + 1] = ARGV[number]
  end
end
return unwanted
