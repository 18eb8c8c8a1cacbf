-- Keeps cached queries, unless what is there was made of newer evidence, or these are void already.
-- KEYS  the cached queries, the video's seal
-- ARGV  the value (its header is `feature_store.cache.codec`'s), lifetime (ms)
-- Returns the seal, so that whoever made them can tell whether they are void, or false where there
-- is none.
local AHEAD_S = 5 -- what claims to be from beyond that is no reason to keep anything out
local function evidence(value)
  if type(value) == 'string' and #value >= 24 and string.sub(value, 1, 3) == 'OBQ' then
    return struct.unpack('>d', string.sub(value, 9, 16)), string.sub(value, 17, 24)
  end
end

local seal = redis.call('GET', KEYS[2])
local read_at, sealed = evidence(ARGV[1])
if seal and seal ~= sealed then
  return seal
end
local other, other_sealed = evidence(redis.pcall('GETRANGE', KEYS[1], 0, 23))
if other and other > read_at and (not seal or seal == other_sealed)
  and other <= tonumber(redis.call('TIME')[1]) + AHEAD_S then
  return seal
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return seal
