-- Return the records of members that ended, in the order of their ends; each once, where it last did.
-- ARGV: 4 id of the batch, 5 first, 6 last, 7 prefix of records.
local found = {}
for number, each in ipairs(redis.call('LRANGE', batches .. ARGV[4] .. ':ended', ARGV[5], ARGV[6])) do
  if redis.call('HGET', ARGV[7] .. each, 'ended_as') == tostring(ARGV[5] + number) then
    local record = redis.call('HGETALL', ARGV[7] .. each)
    record[#record + 1] = 'id'
    record[#record + 1] = each
    found[#found + 1] = record
  end
end
return found
