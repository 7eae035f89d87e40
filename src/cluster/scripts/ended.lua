-- KEYS[2]: the user's sessions. ARGV: lease, session.
redis.call('ZREM', KEYS[2], ARGV[1] .. '/' .. ARGV[2])
