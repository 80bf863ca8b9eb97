-- Return the records of ended jobs that are to be archived, and hold them back from everybody else for a
-- while.
-- ARGV: 4 most of them, 5 ms, 6 prefix of records.
local records = {}
for _, each in ipairs(redis.call('ZRANGE', unarchived, '-inf', now, 'BYSCORE', 'LIMIT', 0, ARGV[4])) do
  redis.call('ZADD', unarchived, now + tonumber(ARGV[5]), each)
  local record = redis.call('HGETALL', ARGV[6] .. each)
  -- One may be past its tombstone by now.
  if #record > 0 then
    record[#record + 1] = 'id'
    record[#record + 1] = each
    records[#records + 1] = record
  end
end
return records
