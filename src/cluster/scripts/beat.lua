-- KEYS: as in begin. ARGV: lease, the report of its node. Returns the reports of all live nodes. Returns nil if the
-- beat came too late or Redis has forgotten the lease; the data of that lease no longer counts then.
if not alive(ARGV[1]) then return false end
known = {}
redis.call('ZADD', KEYS[1], now, ARGV[1])
redis.call('HSET', KEYS[2], ARGV[1], ARGV[2])
local nodes = {}
local told = redis.call('HGETALL', KEYS[2])
for i = 1, #told, 2 do
  if alive(told[i]) then
    nodes[#nodes + 1] = told[i + 1]
  elseif not redis.call('ZSCORE', KEYS[1], told[i]) then
    redis.call('HDEL', KEYS[2], told[i])
  end
end
-- Leases are kept for longer than the two minutes in which a lost dashboard counts.
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - 600000)
for _, key in ipairs(KEYS) do redis.call('PEXPIRE', key, 3600000) end
return nodes
