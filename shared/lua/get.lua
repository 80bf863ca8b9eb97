-- Read the record; a job past its deadline ends by being looked at, so that no worker is needed for it.
if redis.call('EXISTS', job) == 0 then
  return {missing(), now, {}}
end
end_if_late()
return {'', now, told(standing())}
