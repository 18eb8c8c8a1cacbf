-- Of the users behind an anchor the least few are kept, ascending: twelve hexadecimal digits each,
-- without anything between them. The same comes of any order, and one repeated changes nothing.
local ASKER = 12

local function add_asker(askers, asker, most)
  local number = tonumber(asker, 16) -- 48 bits: exact
  local at = 1
  while at <= #askers do
    local other = tonumber(string.sub(askers, at, at + ASKER - 1), 16)
    if other == number then
      return askers
    elseif other > number then
      break
    end
    at = at + ASKER
  end
  local added = string.sub(askers, 1, at - 1) .. asker .. string.sub(askers, at)
  return string.sub(added, 1, most * ASKER)
end
