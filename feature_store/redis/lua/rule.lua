-- Takes changes of rules in: of each rule the greatest (ts, event_id) stays, a removal too.
-- KEYS  rules (rule id -> "ts length-of-event_id event_id JSON"), version, changes (rule id ->
--       version it came with), history (newest changes)
-- ARGV  changes of the history kept, then for each change: rule id, ts, event_id, the whole value,
--       the entry of the history
local keep = tonumber(ARGV[1])
local refusal = refused(KEYS[1], 'HSET', 'INCR', 'ZADD', 'ZREMRANGEBYRANK')
if refusal then
  return refusal
end
redis.call('HLEN', KEYS[1])
redis.call('ZCARD', KEYS[3])
redis.call('ZCARD', KEYS[4])
for i = 2, #ARGV, 5 do
  local id, ts, event_id, value, entry = unpack(ARGV, i, i + 4)
  local newer = true
  local old = redis.call('HGET', KEYS[1], id)
  if old then
    local old_ts, length, start = string.match(old, '^(%S+) (%d+) ()')
    if not old_ts or not tonumber(old_ts) then
      return corrupt(KEYS[1], old)
    end
    local old_id = string.sub(old, start, start + tonumber(length) - 1)
    old_ts = tonumber(old_ts)
    newer = old_ts < tonumber(ts) or (old_ts == tonumber(ts) and bytes_less(old_id, event_id))
  end
  if newer then
    redis.call('HSET', KEYS[1], id, value)
    redis.call('ZADD', KEYS[3], redis.call('INCR', KEYS[2]), id)
  end
  redis.call('ZADD', KEYS[4], ts, entry)
end
redis.call('ZREMRANGEBYRANK', KEYS[4], 0, -keep - 1)
return redis.call('GET', KEYS[2])
