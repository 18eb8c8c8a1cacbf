-- Which of these commands this server would not run for this user.
-- KEYS  one of ours.  ARGV  names of commands, with their subcommand behind a space.
-- Returns the names, "unknown" or "refused", one after the other.
local found = {}
for _, name in ipairs(ARGV) do
  local command, subcommand = string.match(name, '^(%S+) ?(%S*)$')
  local known, allowed = pcall(redis.acl_check_cmd, command, subcommand ~= '' and subcommand or KEYS[1])
  if not known or not allowed then
    found[#found + 1] = name
    found[#found + 1] = known and 'refused' or 'unknown'
  end
end
return found
