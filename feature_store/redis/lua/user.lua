-- Moves a user's deletion forward, then adds what it does not cover.
-- KEYS  history, tapped, shown, deletion
-- ARGV  the three sizes, user TTL (ms), deletion TTL (ms), deletion ts or "",
--       then which of the three (1 to 3), ts, member, ...
-- The deletion is kept as "ts moment", the moment being when the newest deletion was applied.
-- A score is the ts times 2^22: no digit of a double is lost by that, and for a ts of our decades
-- it is a whole number, which Redis keeps in half the bytes.
local function score(ts)
  return string.format('%.17g', tonumber(ts) * 4194304)
end

local SETS, FIRST = 3, 7
local user_ttl, deletion_ttl, deletion = ARGV[4], ARGV[5], ARGV[6]
local refusal = refused(KEYS[1], 'SET', 'ZREMRANGEBYSCORE', 'ZADD', 'ZREMRANGEBYRANK', 'PEXPIRE')
if refusal then
  return refusal
end
local touched = {}
for i = FIRST, #ARGV, 3 do
  touched[tonumber(ARGV[i])] = 0
end
for set = 1, SETS do
  if touched[set] or deletion ~= '' then
    redis.call('ZCARD', KEYS[set]) -- fails here, before anything has changed, on another type
  end
end

local kept = redis.call('GET', KEYS[4])
local deleted = string.match(kept or '', '^%S+')
if kept and not tonumber(deleted) then
  return corrupt(KEYS[4], kept)
end
if deletion ~= '' then
  if not deleted or tonumber(deletion) > tonumber(deleted) then
    deleted = deletion
  end
  local now = redis.call('TIME')[1]
  redis.call('SET', KEYS[4], deleted .. ' ' .. now, 'PX', deletion_ttl)
  for set = 1, SETS do
    redis.call('ZREMRANGEBYSCORE', KEYS[set], '-inf', score(deleted))
  end
end

local horizon = tonumber(deleted or '-1')
for i = FIRST, #ARGV, 3 do
  if tonumber(ARGV[i + 1]) > horizon then
    local set = tonumber(ARGV[i])
    redis.call('ZADD', KEYS[set], 'GT', score(ARGV[i + 1]), ARGV[i + 2])
    touched[set] = touched[set] + 1
  end
end
local added = 0
for set, count in pairs(touched) do
  if count > 0 then
    redis.call('ZREMRANGEBYRANK', KEYS[set], 0, -tonumber(ARGV[set]) - 1)
    redis.call('PEXPIRE', KEYS[set], user_ttl)
    added = added + count
  end
end
return added
