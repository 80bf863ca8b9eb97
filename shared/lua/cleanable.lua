-- Return ended jobs that are past a retention, each with its record as it is in this moment: id, spec,
-- whether the image is gone, whether it was deleted. They are held back from everybody else for a while. Read
-- in two steps, another cleaner's note in between would look like the next one.
-- ARGV: 4 most of them, 5 ms, 6 prefix of records.
local found = {}
for _, each in ipairs(redis.call('ZRANGE', ended, '-inf', '(' .. now, 'BYSCORE', 'LIMIT', 0, ARGV[4])) do
  redis.call('ZADD', ended, now + tonumber(ARGV[5]), each)
  -- What is no record at all must not keep the others from being returned.
  local record = redis.pcall('HMGET', ARGV[6] .. each, 'spec', 'image_gone', 'deleted')
  local spec, image_gone, deleted = unpack(record)
  found[#found + 1] = {each, spec or '', image_gone and 1 or 0, deleted and 1 or 0}
end
return found
