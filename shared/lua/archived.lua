-- Note that these jobs' outcomes are in the object store; return those that were deleted meanwhile.
-- ARGV: 4 prefix of records, 5 and on: ids.
local deleted = {}
for number = 5, #ARGV do
  redis.call('ZREM', unarchived, ARGV[number])
  if redis.call('HEXISTS', ARGV[4] .. ARGV[number], 'deleted') == 1 then
    deleted[#deleted + 1] = ARGV[number]
  end
end
return deleted
