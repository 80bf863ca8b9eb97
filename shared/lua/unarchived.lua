-- Return the records of ended jobs that are to be archived, and hold them back from everybody else for a
-- while.
-- ARGV: 4 most of them, 5 ms, 6 prefix of records.
local records = {}
for _, each in ipairs(redis.call('ZRANGE', unarchived, '-inf', now, 'BYSCORE', 'LIMIT', 0, ARGV[4])) do
  redis.call('ZADD', unarchived, now + tonumber(ARGV[5]), each)
  -- What is no record at all must not keep the others from being returned.
  local record = redis.pcall('HGETALL', ARGV[6] .. each)
  if not record.err and #record == 0 then
    -- It is past its tombstone.
    redis.call('ZREM', unarchived, each)
  elseif not record.err then
    record[#record + 1] = 'id'
    record[#record + 1] = each
    records[#records + 1] = record
  end
end
return records
