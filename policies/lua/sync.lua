-- Bring a slice up to date with its replica. ARGV: now or 0, id, number of the update, what it holds now, how much of that
-- can be recalled, lease in ms, 1 for the last update, {spent, unconfirmed, {tier = spent}} since its beginning (packed),
-- its lines (packed), draws, 1 to be told what was spent. Totals since the beginning make repeats and losses harmless.
local now, id, number = present(ARGV[1]), ARGV[2], tonumber(ARGV[3])
local amount, leased = tonumber(ARGV[4]), tonumber(ARGV[5])
if redis.call('ZSCORE', CLOSED, id) then return { 0 } end
local known = redis.call('HGET', SLICES, id)
local state = known and cmsgpack.unpack(known) or { 0, 0, 0, {}, 0 }
if number <= state[1] then return { 0 } end
local totals, lines = cmsgpack.unpack(ARGV[8]), cmsgpack.unpack(ARGV[9])
local held, late = redis.call('HGET', HOLDS, id), redis.call('HGET', REAPED, id)
local was_held, was_charged = 0, 0
if held then
  was_held, lines = unpack_hold(held)
elseif late then
  was_charged, lines = unpack_hold(late)
end
for _, line in ipairs(lines) do
  local tier = tier_of(line)
  local spent = tier == '' and totals[1] - state[2] or (totals[3][tier] or 0) - (state[4][tier] or 0)
  add(line, 'r', amount - was_held)
  add(line, 's', spent - was_charged)
  add(line, 'u', totals[2] - state[3] - was_charged)
  add(line, 'l', leased - state[5])
  touch(line)
end
redis.call('HDEL', REAPED, id)
if ARGV[7] == '1' then
  redis.call('HDEL', HOLDS, id)
  redis.call('HDEL', SLICES, id)
  redis.call('ZREM', LEASES, id)
  close(id, now)
else
  redis.call('HSET', HOLDS, id, pack(whole(amount), lines))
  redis.call('HSET', SLICES, id, cmsgpack.pack({ number, totals[1], totals[2], totals[3], leased }))
  redis.call('ZADD', LEASES, whole(now + tonumber(ARGV[6])), id)
end
if ARGV[11] ~= '1' then return { 1 } end
local chosen = draws(ARGV[10], now)
return { 1, chosen and spent_now(chosen) or {} }
