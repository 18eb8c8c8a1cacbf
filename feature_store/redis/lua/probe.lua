-- Proves that this server takes what is written by a script.
-- KEYS  what is written, and maybe one to read.  ARGV  lifetime (ms).  Returns what was read.
redis.call('SET', KEYS[1], '1', 'PX', ARGV[1])
return KEYS[2] and redis.call('GET', KEYS[2])
