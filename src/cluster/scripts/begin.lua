-- KEYS[2]: nodes; KEYS[3]: the time since which this Redis has data. ARGV: lease, the lease that it replaces (or
-- empty).
redis.call('SET', KEYS[3], now, 'NX')
if ARGV[2] ~= '' then
  redis.call('ZREM', KEYS[1], ARGV[2])
  redis.call('HDEL', KEYS[2], ARGV[2])
end
redis.call('ZADD', KEYS[1], now, ARGV[1])
