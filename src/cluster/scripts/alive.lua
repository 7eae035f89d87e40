-- This part precedes every script. KEYS[1]: sorted set of leases by the time of their last beat, by the clock of Redis.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local LEASE_MS = 6000
local known = {}
-- Returns true if the node of a lease lives and can receive messages. The connection of a dead process closes at once,
-- long before its beats are missed. The connection of a frozen process stays open, but its beats are missed.
local function alive(lease)
  if known[lease] == nil then
    local beat = redis.call('ZSCORE', KEYS[1], lease)
    known[lease] = beat and now - beat <= LEASE_MS
      and redis.call('PUBSUB', 'NUMSUB', KEYS[1] .. ':' .. lease)[2] > 0
  end
  return known[lease]
end
local function lease_of(member)
  return string.match(member, '^([^/]*)/') or ''
end
