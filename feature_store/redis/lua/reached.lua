-- Note how far a partition of the log was taken in; a worker that is late never sets it back.
-- Where less is noted than was known, state was lost: that is left to be seen.
-- KEYS: reached.  ARGV: offset, offset known to have been noted or -1.  Returns what was noted.
local before = tonumber(redis.call('GET', KEYS[1]) or '-1')
if tonumber(ARGV[1]) > before and before >= tonumber(ARGV[2]) then
  redis.call('SET', KEYS[1], ARGV[1])
end
return before
