-- KEYS[2]: the user's sessions that have the dashboard (score inf) or lost it (score: the time of the loss). ARGV:
-- lease, session, milliseconds to keep the key, then "entered", "left", or how many milliseconds ago it was lost.
local member = ARGV[1] .. '/' .. ARGV[2]
if ARGV[4] == 'left' then
  redis.call('ZREM', KEYS[2], member)
else
  redis.call('ZADD', KEYS[2], ARGV[4] == 'entered' and 'inf' or now - ARGV[4], member)
  redis.call('PEXPIRE', KEYS[2], ARGV[3])
end
