-- Stores a video's text unless a greater (ts, event_id) is there already, and its seal, where that
-- is another: a cached body that was made under the old one is void from then on.
-- KEYS  text, anchors, counters, fence, neighbors, seal
-- ARGV  ts, event_id, the whole value ("ts length-of-event_id event_id JSON"), video TTL (ms), seal
local ts, event_id, value, ttl = tonumber(ARGV[1]), ARGV[2], ARGV[3], ARGV[4]
local refusal = refused(KEYS[1], 'SET', 'PEXPIRE')
if refusal then
  return refusal
end

local newer = true
local old = redis.call('GET', KEYS[1])
if old then
  local old_ts, length, start = string.match(old, '^(%S+) (%d+) ()')
  if old_ts and tonumber(old_ts) then
    local old_id = string.sub(old, start, start + tonumber(length) - 1)
    old_ts = tonumber(old_ts)
    newer = old_ts < ts or (old_ts == ts and bytes_less(old_id, event_id))
  end
end
if newer then
  redis.call('SET', KEYS[1], value)
  if redis.call('GET', KEYS[6]) ~= ARGV[5] then
    redis.call('SET', KEYS[6], ARGV[5], 'PX', ttl)
  end
end
for i = 1, 5 do
  redis.call('PEXPIRE', KEYS[i], ttl)
end
return newer and 1 or 0
