-- Lease a slice: hold what a replica wants, or less where little is free. ARGV: now or 0, id, wanted, least, divisor of
-- what is free, lease in ms, draws. Returns {amount, now, when the first window ends in ms, lines}, {0, now} when less
-- than the least could be had or slices were recalled a moment ago, {-1, now} as `reserve` does.
local now, id, amount = present(ARGV[1]), ARGV[2], tonumber(ARGV[3])
if redis.call('ZSCORE', CLOSED, id) then return { 0, now } end
local wanted = draws(ARGV[7], now)
if not wanted then return { -1, now } end
local until_ms = math.huge
for _, draw in ipairs(wanted) do
  if now < tonumber(redis.call('HGET', LINES, draw.line .. SEPARATOR .. 'q') or '0') then return { 0, now } end
  until_ms = math.min(until_ms, draw.until_ms)
  if draw.limit >= 0 then
    local reserved, spent, granted = sums(draw)
    local free = draw.limit + granted - reserved - spent
    amount = math.min(amount, math.floor(free / tonumber(ARGV[5])))
  end
end
if amount < tonumber(ARGV[4]) then return { 0, now } end
local lines = {}
for at, draw in ipairs(distinct(wanted)) do
  lines[at] = draw.line
  add(draw.line, 'r', amount)
  add(draw.line, 'l', amount)
  touch(draw.line, draw.others)
end
redis.call('HSET', HOLDS, id, pack(whole(amount), lines))
redis.call('HSET', SLICES, id, cmsgpack.pack({ 0, 0, 0, {}, amount }))
redis.call('ZADD', LEASES, whole(now + tonumber(ARGV[6])), id)
return { amount, now, until_ms, lines }
