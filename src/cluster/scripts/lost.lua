-- KEYS[2]: as in dashboard; KEYS[3]: as in begin. ARGV: how many milliseconds a loss counts. Returns 1 if a session of
-- the user may have lost the dashboard within that time.
local began = redis.call('GET', KEYS[3])
if not began or now - began <= tonumber(ARGV[1]) then return 1 end
local told = redis.call('ZRANGE', KEYS[2], 0, -1, 'WITHSCORES')
for i = 1, #told, 2 do
  local since = told[i + 1]
  -- The node of this session is dead: the dashboard was lost at the node's last beat.
  if since == 'inf' and not alive(lease_of(told[i])) then
    since = redis.call('ZSCORE', KEYS[1], lease_of(told[i])) or 0
  end
  if since ~= 'inf' then
    if now - since <= tonumber(ARGV[1]) then return 1 end
    redis.call('ZREM', KEYS[2], told[i])
  end
end
return 0
