-- Charge what a hold has cost, once. ARGV: now or 0, id, cost, costs of tiers (packed map, or empty), draws, 1 to be told
-- what was spent. Returns {1} or {0} (known before), followed by spent, granted and window of each draw.
local now, id, total = present(ARGV[1]), ARGV[2], tonumber(ARGV[3])
local parts = ARGV[4] ~= '' and cmsgpack.unpack(ARGV[4]) or nil

local function cost_of(line)
  local tier = tier_of(line)
  if tier == '' or not parts then return total end
  return parts[tier] or 0
end

local held = redis.call('HGET', HOLDS, id)
local late = not held and redis.call('HGET', REAPED, id)
local chosen
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
elseif redis.call('ZSCORE', CLOSED, id) then
  return { 0 }
else
  chosen = draws(ARGV[5], now)
  if not chosen then return { -1, now } end
  for _, draw in ipairs(distinct(chosen)) do
    add(draw.line, 's', cost_of(draw.line))
    touch(draw.line, draw.others)
  end
end
close(id, now)
if ARGV[6] ~= '1' then return { 1 } end
chosen = chosen or draws(ARGV[5], now)
return { 1, chosen and spent_now(chosen) or {} }
