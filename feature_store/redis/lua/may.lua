-- Put before every script that writes. A server does not undo what a script has done before one of
-- its commands is refused: so before the first write it is asked whether it will take them all, and
-- what is read is looked at. Then only a server that takes no writes at all can refuse, and it
-- refuses the first.

-- An error reply where this user may not run one of these commands on the key, else nil. Fails
-- where the server does not know one.
local function refused(key, ...)
  for i = 1, select('#', ...) do
    local name = select(i, ...)
    if not redis.acl_check_cmd(name, key) then
      return redis.error_reply('NOPERM this user may not run ' .. name .. ' on ' .. key)
    end
  end
end

-- An error reply for a value that something else wrote.
local function corrupt(key, value)
  return redis.error_reply('CORRUPT ' .. key .. ' holds what was not put there: '
    .. string.sub(tostring(value), 1, 80))
end
