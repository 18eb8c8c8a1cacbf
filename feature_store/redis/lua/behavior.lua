-- Applies a batch's behaviour events to one video, all or none of them, in the order given.
-- KEYS  anchors, counters, fence, text, neighbors, then one seen set per dedupe window
-- ARGV  max_entries, video TTL (ms), users kept of an anchor, msgpack of the events, each
--       {stream ("" for no fence), offset,
--        {KEYS index of the seen set of the window before its own, of its own, of the one after,
--         TTL (ms) of its own}, digest, {field, thousandths, user, digest of what counts once, ...},
--        {field, exposures, clicks, engagements, ...}}
-- Returns {applied, fenced, duplicates}.
local anchors, counters, fence = KEYS[1], KEYS[2], KEYS[3]
local max_entries, video_ttl, most_askers = tonumber(ARGV[1]), ARGV[2], tonumber(ARGV[3])
local events = cmsgpack.unpack(ARGV[4])
local EXACT = 2 ^ 53 -- up to here a number of Lua counts by ones
local AT_ONCE = 1000 -- values that one command is given or asked for

local refusal = refused(anchors, 'HSET', 'SADD', 'HKEYS', 'HDEL', 'PEXPIRE')
if refusal then
  return refusal
end

-- Everything is read and added up before anything is written: a key of another type, or a value
-- that can't be added to, fails here. What is not read is not written either.
local applied, fenced, duplicates = 0, 0, 0
local reached, digests, seen_ttl, known, there = {}, {}, {}, {}, {}
local weight_fields, weights, new_askers = {}, {}, {}
local count_fields, exposures, clicks, engagements = {}, {}, {}, {}

-- Whether this came in the window of a seen set.
local function came(seen, digest)
  known[seen] = known[seen] or {}
  return known[seen][digest] or redis.call('SISMEMBER', KEYS[seen], digest) == 1
end

-- The same of a window beside one's own, which mostly is empty.
local function came_beside(seen, digest)
  if there[seen] == nil then
    there[seen] = redis.call('SCARD', KEYS[seen]) > 0
  end
  return (there[seen] or digests[seen]) and came(seen, digest)
end

-- How much more often it counts: see `count_change` in repeats.py. Notes it.
local function count_change(near, digest)
  local before, own, after, ttl = unpack(near)
  if came(own, digest) then
    return 0
  end
  known[own][digest] = true
  digests[own], seen_ttl[own] = digests[own] or {}, ttl
  table.insert(digests[own], digest)
  return (came_beside(before, digest) and 0 or 1) - (came_beside(after, digest) and 1 or 0)
end

for _, event in ipairs(events) do
  local stream, offset, near, digest, adds, counts = unpack(event)
  local last = -1
  if stream ~= '' then
    last = reached[stream]
    if not last then
      local noted = redis.call('HGET', fence, stream) or -1
      last = tonumber(noted)
      if not last then
        return corrupt(fence, noted)
      end
    end
  end
  if stream ~= '' and offset <= last then
    fenced = fenced + 1
  else
    if stream ~= '' then
      reached[stream] = offset
    end
    local change = count_change(near, digest)
    if change == 1 then
      applied = applied + 1
    else
      duplicates = duplicates + 1
    end
    for i = 1, #adds, 4 do
      local field, milli, asker, once = unpack(adds, i, i + 3)
      local counted = change
      if once ~= '' then
        counted = count_change(near, once)
      end
      if counted ~= 0 then
        if not weights[field] then
          weight_fields[#weight_fields + 1] = field
          weights[field], new_askers[field] = 0, {}
        end
        weights[field] = weights[field] + counted * milli
        if asker ~= '' then
          table.insert(new_askers[field], asker)
        end
      end
    end
    if change ~= 0 then
      for i = 1, #counts, 4 do
        local field = counts[i]
        if not exposures[field] then
          count_fields[#count_fields + 1] = field
          exposures[field], clicks[field], engagements[field] = 0, 0, 0
        end
        exposures[field] = exposures[field] + change * counts[i + 1]
        clicks[field] = clicks[field] + change * counts[i + 2]
        engagements[field] = engagements[field] + change * counts[i + 3]
      end
    end
  end
end

-- The digits of a whole number with this added to it. %d, here and below: %.0f looks for the digits
-- of a fraction, which is slow.
local function plus(digits, change)
  return change == 0 and digits or string.format('%d', math.max(0, digits + change))
end

local new_weights, new_counts = {}, {}
for first = 1, #weight_fields, AT_ONCE do
  local last = math.min(first + AT_ONCE - 1, #weight_fields)
  local old = redis.call('HMGET', anchors, unpack(weight_fields, first, last))
  for i = first, last do
    local field, text = weight_fields[i], old[i - first + 1] or '0'
    local value, askers = string.match(text, '^(%d+) ?(%x*)$')
    local sum = value and tonumber(value) + weights[field]
    if not sum or sum > EXACT or #askers % ASKER ~= 0 then
      return corrupt(anchors, text)
    end
    for _, asker in ipairs(new_askers[field]) do
      askers = add_asker(askers, asker, most_askers)
    end
    new_weights[2 * i - 1], new_weights[2 * i] =
      field, string.format('%d %s', math.max(0, sum), askers)
  end
end
for first = 1, #count_fields, AT_ONCE do
  local last = math.min(first + AT_ONCE - 1, #count_fields)
  local old = redis.call('HMGET', counters, unpack(count_fields, first, last))
  for i = first, last do
    local field, text = count_fields[i], old[i - first + 1] or '0 0 0'
    local e, c, g = string.match(text, '^(%d+) (%d+) (%d+)$')
    if not e then
      return corrupt(counters, text)
    end
    new_counts[2 * i - 1], new_counts[2 * i] = field, plus(e, exposures[field]) .. ' '
      .. plus(c, clicks[field]) .. ' ' .. plus(g, engagements[field])
  end
end

local function write(command, key, values)
  for first = 1, #values, 2 * AT_ONCE do
    redis.call(command, key, unpack(values, first, math.min(first + 2 * AT_ONCE - 1, #values)))
  end
end

write('HSET', anchors, new_weights)
write('HSET', counters, new_counts)
for seen, values in pairs(digests) do
  write('SADD', KEYS[seen], values)
  redis.call('PEXPIRE', KEYS[seen], seen_ttl[seen])
end
for stream, offset in pairs(reached) do
  redis.call('HSET', fence, stream, string.format('%d', offset))
end
if #new_weights > 0 then
  trim(anchors, max_entries)
end
if #new_counts > 0 then
  trim(counters, max_entries)
end
if applied + duplicates > 0 then
  for i = 1, 5 do
    redis.call('PEXPIRE', KEYS[i], video_ttl)
  end
end
return {applied, fenced, duplicates}
