-- Applies a batch's behaviour events to one video, all or none of them, in the order given.
-- KEYS  anchors, counters, fence, text, neighbors, then one seen set per dedupe window
-- ARGV  max_entries, video TTL (ms), seen TTL (ms), msgpack of the events, each
--       {stream ("" for no fence), offset, KEYS index of its seen set, digest,
--        {field, thousandths, ...}, {field, exposures, clicks, engagements, ...}}
-- Returns {applied, fenced, duplicates}.
local anchors, counters, fence = KEYS[1], KEYS[2], KEYS[3]
local max_entries, video_ttl, seen_ttl = tonumber(ARGV[1]), ARGV[2], ARGV[3]
local events = cmsgpack.unpack(ARGV[4])

local function count(text)
  local exposures, clicks, engagements = string.match(text or '', '^(%d+) (%d+) (%d+)$')
  return tonumber(exposures) or 0, tonumber(clicks) or 0, tonumber(engagements) or 0
end

-- Everything is read once before anything is written: a key of the wrong type fails here.
redis.call('HLEN', anchors)
redis.call('HLEN', counters)
redis.call('HLEN', fence)
for i = 6, #KEYS do
  redis.call('SCARD', KEYS[i])
end

local applied, fenced, duplicates = 0, 0, 0
local reached = {}
for _, event in ipairs(events) do
  local stream, offset, seen, digest, weights, counts = unpack(event)
  local last = -1
  if stream ~= '' then
    last = reached[stream] or tonumber(redis.call('HGET', fence, stream) or -1)
  end
  if stream ~= '' and offset <= last then
    fenced = fenced + 1
  else
    if stream ~= '' then
      reached[stream] = offset
    end
    if redis.call('SADD', KEYS[seen], digest) == 0 then
      duplicates = duplicates + 1
    else
      applied = applied + 1
      for i = 1, #weights, 2 do
        redis.call('HINCRBY', anchors, weights[i], string.format('%.0f', weights[i + 1]))
      end
      for i = 1, #counts, 4 do
        local exposures, clicks, engagements = count(redis.call('HGET', counters, counts[i]))
        redis.call('HSET', counters, counts[i], string.format('%.0f %.0f %.0f',
          exposures + counts[i + 1], clicks + counts[i + 2], engagements + counts[i + 3]))
      end
    end
  end
end

for stream, offset in pairs(reached) do
  redis.call('HSET', fence, stream, string.format('%.0f', offset))
end
if applied > 0 then
  trim(anchors, max_entries)
  trim(counters, max_entries)
end
if applied + duplicates > 0 then
  for i = 1, 5 do
    redis.call('PEXPIRE', KEYS[i], video_ttl)
  end
  for i = 6, #KEYS do
    redis.call('PEXPIRE', KEYS[i], seen_ttl)
  end
end
return {applied, fenced, duplicates}
