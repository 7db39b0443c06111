-- Hold an amount in all lines or in none. ARGV: now or 0, id, amount, lease in ms, limits.
-- Returns {1} when granted (now or before), else {0, limit, window, used, ...} for every limit without room.
local now, id, amount = present(ARGV[1]), ARGV[2], tonumber(ARGV[3])
if redis.call('HEXISTS', HOLDS, id) == 1 or redis.call('HEXISTS', REAPED, id) == 1 or redis.call('ZSCORE', CLOSED, id) then
  return {1}
end
local wanted, refused = limits(5, now), {0}
for at, limit in ipairs(wanted) do
  local used = sum(limit.line, 'r') + sum(limit.line, 's')
  if amount > 0 and amount > limit.limit - used then
    refused[#refused + 1] = at
    refused[#refused + 1] = limit.window
    refused[#refused + 1] = used
  end
end
if #refused > 1 then return refused end
local lines = distinct(wanted)
for _, line in ipairs(lines) do
  add(line, 'r', amount)
  touch(line)
end
redis.call('HSET', HOLDS, id, pack(ARGV[3], lines))
redis.call('ZADD', LEASES, whole(now + tonumber(ARGV[4])), id)
return {1}
