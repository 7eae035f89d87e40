-- KEYS: as in begin. ARGV: lease, what is told of its node. Returns what is told of each live node; nil: it was too
-- late, or Redis has forgotten the lease, and what was said under it counts no more.
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
-- Lost dashboards are asked for two minutes.
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - 600000)
for _, key in ipairs(KEYS) do redis.call('PEXPIRE', key, 3600000) end
return nodes
