-- Adds queries to the repertoire and takes others out, as one new version.
-- KEYS  queries (query -> version it came with), gone (query -> version that took it out), version
-- ARGV  gone ones kept, how many are added, the added, the taken out
-- Returns the version.
local keep, adds = tonumber(ARGV[1]), tonumber(ARGV[2])
local refusal = refused(KEYS[1], 'SET', 'ZADD', 'ZREM', 'ZREMRANGEBYRANK')
if refusal then
  return refusal
end
redis.call('ZCARD', KEYS[1])
redis.call('ZCARD', KEYS[2])
local old = redis.call('GET', KEYS[3]) or '0 0'
local version, cut = string.match(old, '^(%d+) (%d+)$')
if not version then
  return corrupt(KEYS[3], old)
end
version = version + 1
for i = 3, 2 + adds do
  redis.call('ZADD', KEYS[1], version, ARGV[i])
  redis.call('ZREM', KEYS[2], ARGV[i])
end
for i = 3 + adds, #ARGV do
  redis.call('ZREM', KEYS[1], ARGV[i])
  redis.call('ZADD', KEYS[2], version, ARGV[i])
  cut = version
end
redis.call('ZREMRANGEBYRANK', KEYS[2], 0, -keep - 1)
redis.call('SET', KEYS[3], string.format('%.0f %.0f', version, cut))
return version
