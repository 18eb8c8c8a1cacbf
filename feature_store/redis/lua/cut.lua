-- Six bytes of a string from `position` as one exact number that orders as they do; the end of
-- the string orders before every byte.
local function six_bytes(text, position)
  local a, b, c, d, e, f = string.byte(text, position, position + 5)
  return (((((a or -1) * 257 + (b or -1)) * 257 + (c or -1)) * 257 + (d or -1)) * 257
    + (e or -1)) * 257 + (f or -1)
end

-- The fields to cut so that the `keep` greatest by bytes stay (1 <= keep < #fields, all distinct).
-- Looks at six bytes of all, then at the next six of those that tie at the border: linear in the
-- bytes, where sorting would compare whole strings, and at the pace of Lua.
local function lowest(fields, keep)
  local cut, group, position = {}, fields, 1
  while #group > keep do
    local numbers, sorted = {}, {}
    local least, greatest = math.huge, -math.huge
    for i, field in ipairs(group) do
      local number = six_bytes(field, position)
      numbers[i], sorted[i] = number, number
      least, greatest = math.min(least, number), math.max(greatest, number)
    end
    if least < greatest then
      table.sort(sorted)
      local border, tied = sorted[#sorted - keep + 1], {}
      for i, field in ipairs(group) do
        if numbers[i] < border then
          cut[#cut + 1] = field
        elseif numbers[i] == border then
          tied[#tied + 1] = field
        else
          keep = keep - 1
        end
      end
      group = tied
    end
    position = position + 6
  end
  return cut
end

-- Only the greatest `keep` fields of a hash count, and readers cut exactly; a quarter of slack
-- makes cutting rare. A field that was cut may come back, but stays below the border for ever.
local function trim(key, keep)
  if redis.call('HLEN', key) <= keep * 1.25 then
    return
  end
  local cut = lowest(redis.call('HKEYS', key), keep)
  for first = 1, #cut, 1000 do
    redis.call('HDEL', key, unpack(cut, first, math.min(first + 999, #cut)))
  end
end
