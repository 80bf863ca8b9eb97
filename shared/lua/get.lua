-- Read the record; a job past its deadline ends by being looked at, so that no worker is needed for it.
end_if_late()
return {'', now, record()}
