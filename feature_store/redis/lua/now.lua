-- The time by the server that has this key, in microseconds.
local time = redis.call('TIME')
return time[1] .. string.format('%06d', time[2])
