-- A process says that it is there, and on which version; what it said before is taken back.
-- KEYS  processes
-- ARGV  the process, as it said before or "", seconds for which others that say no more are kept
local now = redis.call('TIME')[1]
if ARGV[2] ~= '' and ARGV[2] ~= ARGV[1] then
  redis.call('ZREM', KEYS[1], ARGV[2])
end
redis.call('ZADD', KEYS[1], now, ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - ARGV[3])
return 1
