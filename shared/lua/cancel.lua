-- End the job at its owner's wish; a running one's outcome is refused from now on.
if redis.call('EXISTS', job) == 0 then
  return {missing(), now}
end
end_if_late()
if not is_open() then
  return {'final', now, record()}
end
local outcome = field('status')
finish('canceled')
return {outcome, now, record()}
