-- Charge what a hold has cost, once. ARGV: now or 0, id, cost, number of tiers, tier and cost of each, limits.
local now, id, total = present(ARGV[1]), ARGV[2], tonumber(ARGV[3])
local parts, has_parts = {}, tonumber(ARGV[4]) > 0
for at = 5, 4 + 2 * tonumber(ARGV[4]), 2 do parts[ARGV[at]] = tonumber(ARGV[at + 1]) end

local function cost_of(line)
  local tier = tier_of(line)
  if tier == '' or not has_parts then return total end
  return parts[tier] or 0
end

local held, late = redis.call('HGET', HOLDS, id), redis.call('HGET', REAPED, id)
if held then
  local amount, lines = unpack_hold(held)
  for _, line in ipairs(lines) do
    add(line, 'r', -amount)
    add(line, 's', cost_of(line))
    touch(line)
  end
  redis.call('HDEL', HOLDS, id)
  redis.call('ZREM', LEASES, id)
elseif late then
  local amount, lines = unpack_hold(late)
  for _, line in ipairs(lines) do
    add(line, 's', cost_of(line) - amount)
    add(line, 'u', -amount)
    touch(line)
  end
  redis.call('HDEL', REAPED, id)
elseif not redis.call('ZSCORE', CLOSED, id) then
  for _, line in ipairs(distinct(limits(5 + 2 * tonumber(ARGV[4]), now))) do
    add(line, 's', cost_of(line))
    touch(line)
  end
else
  return 0
end
redis.call('ZADD', CLOSED, whole(now), id)
if redis.call('ZCARD', CLOSED) > REMEMBERED then redis.call('ZREMRANGEBYRANK', CLOSED, 0, 0) end
return 1
