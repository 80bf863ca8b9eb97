-- End the job at its owner's wish; a running one's outcome is refused from now on.
-- ARGV: 4 token of this call.
if redis.call('EXISTS', job) == 0 then
  return {missing()}
end
end_if_late()
if not is_open() then
  -- The connection made the call once more because the first answer was lost.
  local token, before = string.match(field('ended_by') or '', '^(%S+) (%S+)$')
  return {token == ARGV[4] and before or 'final', record()}
end
local outcome = field('status')
redis.call('HSET', job, 'ended_by', ARGV[4] .. ' ' .. outcome)
finish('canceled')
return {outcome, record()}
