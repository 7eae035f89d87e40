-- KEYS[2]: disconnected users, by the time of the disconnect. ARGV: user, time (milliseconds since 1970), milliseconds
-- to keep it, the message for all nodes (or empty), the channel that all nodes listen to.
redis.call('ZADD', KEYS[2], 'GT', ARGV[2], ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now - ARGV[3])
redis.call('ZREMRANGEBYRANK', KEYS[2], 0, -100001)
redis.call('PEXPIRE', KEYS[2], ARGV[3])
if ARGV[4] ~= '' then redis.call('PUBLISH', ARGV[5], ARGV[4]) end
