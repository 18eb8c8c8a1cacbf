-- Moves a user's deletion forward, then adds the queries it does not cover.
-- KEYS  history, deletion
-- ARGV  history_size, user TTL (ms), deletion TTL (ms), deletion ts or "", then ts, query, ...
-- The deletion is kept as "ts moment", the moment being when the newest deletion was applied.
-- A score is the ts times 2^22: no digit of a double is lost by that, and for a ts of our decades
-- it is a whole number, which Redis keeps in half the bytes.
local function score(ts)
  return string.format('%.17g', tonumber(ts) * 4194304)
end

local size, user_ttl, deletion_ttl, deletion = tonumber(ARGV[1]), ARGV[2], ARGV[3], ARGV[4]
local refusal = refused(KEYS[1], 'SET', 'ZREMRANGEBYSCORE', 'ZADD', 'ZREMRANGEBYRANK', 'PEXPIRE')
if refusal then
  return refusal
end
redis.call('ZCARD', KEYS[1]) -- fails here, before anything has changed, on a key of another type

local kept = redis.call('GET', KEYS[2])
local deleted = string.match(kept or '', '^%S+')
if kept and not tonumber(deleted) then
  return corrupt(KEYS[2], kept)
end
if deletion ~= '' then
  if not deleted or tonumber(deletion) > tonumber(deleted) then
    deleted = deletion
  end
  local now = redis.call('TIME')[1]
  redis.call('SET', KEYS[2], deleted .. ' ' .. now, 'PX', deletion_ttl)
  redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', score(deleted))
end

local horizon = tonumber(deleted or '-1')
local added = 0
for i = 5, #ARGV, 2 do
  if tonumber(ARGV[i]) > horizon then
    redis.call('ZADD', KEYS[1], 'GT', score(ARGV[i]), ARGV[i + 1])
    added = added + 1
  end
end
if added > 0 then
  redis.call('ZREMRANGEBYRANK', KEYS[1], 0, -size - 1)
  redis.call('PEXPIRE', KEYS[1], user_ttl)
end
return added
