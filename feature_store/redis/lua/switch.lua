-- Makes another version of the state the live one, unless somebody else has changed it since.
-- KEYS  live, journal
-- ARGV  the live version as it was known ("" for none), the one to be live, the journal of then
-- Returns 1, or 0 where the live version is another than was known.
local refusal = refused(KEYS[1], 'SET')
if refusal then
  return refusal
end
if (redis.call('GET', KEYS[1]) or '') ~= ARGV[1] then
  return 0
end
redis.call('SET', KEYS[1], ARGV[2])
redis.call('SET', KEYS[2], ARGV[3])
return 1
