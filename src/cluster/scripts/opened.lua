-- KEYS[2]: the user's sessions on all nodes, by the time when they began. ARGV: lease, maximum number of sessions,
-- milliseconds to keep the key, then session and age of each session. The nodes receive a message to close the oldest
-- sessions beyond the maximum.
for i = 4, #ARGV, 2 do
  redis.call('ZADD', KEYS[2], now - ARGV[i + 1], ARGV[1] .. '/' .. ARGV[i])
end
redis.call('PEXPIRE', KEYS[2], ARGV[3])
local over = redis.call('ZCARD', KEYS[2]) - ARGV[2]
if over <= 0 then return end
for _, member in ipairs(redis.call('ZRANGE', KEYS[2], 0, -1)) do
  if not alive(lease_of(member)) then over = over - redis.call('ZREM', KEYS[2], member) end
end
if over <= 0 then return end
for _, member in ipairs(redis.call('ZRANGE', KEYS[2], 0, over - 1)) do
  local lease = lease_of(member)
  redis.call('ZREM', KEYS[2], member)
  redis.call('PUBLISH', KEYS[1] .. ':' .. lease, '{"close":' .. string.sub(member, #lease + 2) .. '}')
end
