-- What was generated under a digest; where nothing was, whose turn it is to generate it.
-- KEYS  the body, the claim on it.  ARGV  who asks, how long a claim holds (ms)
-- Returns the body, or 1 where the caller has the claim, or 0 where another has it.
local body = redis.call('GET', KEYS[1])
if body then
  return body
end
if redis.call('SET', KEYS[2], ARGV[1], 'NX', 'PX', ARGV[2]) or
  redis.call('GET', KEYS[2]) == ARGV[1] then
  return 1
end
return 0
