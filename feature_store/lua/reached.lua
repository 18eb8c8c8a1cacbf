-- Note how far a partition of the log was taken in; a worker that is late never sets it back.
-- KEYS: reached.  ARGV: offset.
local before = tonumber(redis.call('GET', KEYS[1]) or '-1')
if tonumber(ARGV[1]) > before then
  redis.call('SET', KEYS[1], ARGV[1])
end
return 0
