-- Charge expired holds in full and flag them; drop what is long over. ARGV: now or 0, at most, keep in ms.
local now = present(ARGV[1])
local expired = redis.call('ZRANGEBYSCORE', LEASES, '-inf', whole(now), 'LIMIT', 0, ARGV[2])
for _, id in ipairs(expired) do
  local packed = redis.call('HGET', HOLDS, id)
  local amount, lines = unpack_hold(packed)
  local slice = redis.call('HGET', SLICES, id)
  local leased = 0
  if slice then
    local state = cmsgpack.unpack(slice)
    leased, state[5] = state[5], 0
    redis.call('HSET', SLICES, id, cmsgpack.pack(state))
  end
  for _, line in ipairs(lines) do
    add(line, 'r', -amount)
    add(line, 's', amount)
    add(line, 'u', amount)
    add(line, 'l', -leased)
  end
  redis.call('HDEL', HOLDS, id)
  redis.call('ZREM', LEASES, id)
  redis.call('HSET', REAPED, id, packed)
  redis.call('ZADD', ENDS, whole(now), CLOSED_LATE .. id)
end
local before = whole(now - tonumber(ARGV[3]))
redis.call('ZREMRANGEBYSCORE', CLOSED, '-inf', before)
redis.call('ZREMRANGEBYSCORE', ALERTS, '-inf', before)
local old = redis.call('ZRANGEBYSCORE', ENDS, '-inf', before, 'LIMIT', 0, ARGV[2])
for _, line in ipairs(old) do
  if string.sub(line, 1, 1) == CLOSED_LATE then
    redis.call('HDEL', REAPED, string.sub(line, 2))
    redis.call('HDEL', SLICES, string.sub(line, 2))
    redis.call('ZREM', ENDS, line)
  elseif tonumber(redis.call('HGET', LINES, line .. SEPARATOR .. 'r') or '0') == 0 then
    for _, kind in ipairs({ 'r', 's', 'u', 'g', 'l', 'q', 'n' }) do
      redis.call('HDEL', LINES, line .. SEPARATOR .. kind)
    end
    redis.call('ZREM', ENDS, line)
  end
end
return #expired
