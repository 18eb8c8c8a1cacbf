-- A token bucket that all processes share, as the time at which it will be full again.
-- KEYS  the bucket of one caller
-- ARGV  microseconds a token, tokens that it holds, tokens wanted, 1 where these are taken whether
--       they are there or not
-- Returns the tokens granted, and the microseconds until there is another where they were fewer.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local each, burst, wanted = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local full = math.max(now, tonumber(redis.call('GET', KEYS[1]) or '') or 0)
local there = math.floor((now - full) / each + burst + 1e-6)
local granted = math.max(0, math.min(there, wanted))
if ARGV[4] == '1' then
  granted = wanted
end
if granted > 0 then
  full = full + granted * each
  local lifetime = math.ceil((full - now) / 1000) + 1000
  redis.call('SET', KEYS[1], string.format('%.0f', full), 'PX', string.format('%.0f', lifetime))
end
return {granted, granted >= wanted and 0 or math.ceil(full + each - burst * each - now)}
