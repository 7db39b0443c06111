-- Give slots back and correct tokens. KEYS: the ledger's eight, then rate and slots of each scope. ARGV: now or 0,
-- replica, lease of slots in ms, scopes {{limit of tokens (0: nothing to correct), tokens more than taken, has slots (1),
-- requests of this replica in flight, or -1: one less than known}, ...} (packed).
local now = present(ARGV[1])
local replica, lease_ms = ARGV[2], tonumber(ARGV[3])
for at, scope in ipairs(cmsgpack.unpack(ARGV[4])) do
  local rate_key, slots_key = KEYS[7 + 2 * at], KEYS[8 + 2 * at]
  if scope[1] > 0 and scope[2] ~= 0 then
    local now_us = now * 1000
    local full = math.max(tonumber(redis.call('HGET', rate_key, 'tokens') or '0'), now_us)
    full = full + scope[2] / scope[1] * 60000000
    redis.call('HSET', rate_key, 'tokens', whole(full))
    redis.call('PEXPIRE', rate_key, whole(math.max(0, math.ceil((full - now_us) / 1000)) + 60000))
  end
  if scope[3] == 1 then
    local known = redis.call('HGET', slots_key, replica)
    local count = scope[4]
    if count < 0 then count = known and math.max(0, cmsgpack.unpack(known)[1] - 1) or 0 end
    if count == 0 then
      redis.call('HDEL', slots_key, replica)
    else
      redis.call('HSET', slots_key, replica, cmsgpack.pack({ count, now + lease_ms }))
      redis.call('PEXPIRE', slots_key, whole(10 * lease_ms))
    end
  end
end
return 1
