-- Charge expired holds in full and flag them; drop what is long over. ARGV: now or 0, at most, keep in ms.
local now = present(ARGV[1])
local expired = redis.call('ZRANGEBYSCORE', LEASES, '-inf', whole(now), 'LIMIT', 0, ARGV[2])
for _, id in ipairs(expired) do
  local packed = redis.call('HGET', HOLDS, id)
  local amount, lines = unpack_hold(packed)
  for _, line in ipairs(lines) do
    add(line, 'r', -amount)
    add(line, 's', amount)
    add(line, 'u', amount)
  end
  redis.call('HDEL', HOLDS, id)
  redis.call('ZREM', LEASES, id)
  redis.call('HSET', REAPED, id, packed)
  redis.call('ZADD', ENDS, whole(now), CLOSED_LATE .. id)
end
redis.call('ZREMRANGEBYSCORE', CLOSED, '-inf', whole(now - tonumber(ARGV[3])))
local old = redis.call('ZRANGEBYSCORE', ENDS, '-inf', whole(now - tonumber(ARGV[3])), 'LIMIT', 0, ARGV[2])
for _, line in ipairs(old) do
  if string.sub(line, 1, 1) == CLOSED_LATE then
    redis.call('HDEL', REAPED, string.sub(line, 2))
    redis.call('ZREM', ENDS, line)
  elseif sum(line, 'r') == 0 then
    redis.call('HDEL', LINES, line .. SEPARATOR .. 'r', line .. SEPARATOR .. 's', line .. SEPARATOR .. 'u')
    redis.call('ZREM', ENDS, line)
  end
end
return #expired
