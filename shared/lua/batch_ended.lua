-- Return the records of members that ended, in the order of their ends; each once, where it last did, and none
-- whose result is past its retention, as it may be in a batch that others of it kept open for long.
-- ARGV: 4 id of the batch, 5 first, 6 last, 7 prefix of records.
local found = {}
for number, each in ipairs(redis.call('LRANGE', batches .. ARGV[4] .. ':ended', ARGV[5], ARGV[6])) do
  local as, expires = unpack(redis.call('HMGET', ARGV[7] .. each, 'ended_as', 'expires_at_ms'))
  if as == tostring(ARGV[5] + number) and now <= tonumber(expires) then
    local record = redis.call('HGETALL', ARGV[7] .. each)
    record[#record + 1] = 'id'
    record[#record + 1] = each
    found[#found + 1] = record
  end
end
return found
