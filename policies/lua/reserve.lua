-- Hold an amount in all lines or in none. ARGV: now or 0, id, amount, lease in ms, draws, channel to recall slices on.
-- Returns {1} when granted (now or before); {-1, now} when no window fits the server's clock; else
-- {0, can be had by recalling slices, number of the draw, free, granted, end of the window in ms, ...}.
local now, id, amount = present(ARGV[1]), ARGV[2], tonumber(ARGV[3])
if redis.call('HEXISTS', HOLDS, id) == 1 or redis.call('ZSCORE', CLOSED, id) or redis.call('HEXISTS', REAPED, id) == 1 then
  return { 1 }
end
local wanted = draws(ARGV[5], now)
if not wanted then return { -1, now } end
local refused, recallable, short = { 0, 1 }, 1, {}
if amount > 0 then
  for at, draw in ipairs(wanted) do
    if draw.limit >= 0 then
      local reserved, spent, granted = sums(draw)
      local free = draw.limit + granted - reserved - spent
      if amount > free then
        local _, _, _, _, leased = sums(draw, true)
        if amount > free + leased then recallable = 0 end
        short[#short + 1] = draw.line
        for _, number in ipairs({ at, free, granted, end_of(draw.line) }) do refused[#refused + 1] = number end
      end
    end
  end
end
if #short > 0 then
  refused[2] = recallable
  if recallable == 1 and ARGV[6] ~= '' then
    for _, line in ipairs(short) do redis.call('HSET', LINES, line .. SEPARATOR .. 'q', whole(now + 1000)) end
    redis.call('PUBLISH', ARGV[6], table.concat(short, '\n'))
  end
  return refused
end
local lines = {}
for at, draw in ipairs(distinct(wanted)) do
  lines[at] = draw.line
  add(draw.line, 'r', amount)
  touch(draw.line, draw.others)
end
redis.call('HSET', HOLDS, id, pack(ARGV[3], lines))
redis.call('ZADD', LEASES, whole(now + tonumber(ARGV[4])), id)
return { 1 }
