-- Read the sums of some draws. ARGV: now or 0, draws.
-- Returns {window or part, reserved, spent, granted, unconfirmed, leased} for each, flat; {-1, now} as `reserve` does.
local now = present(ARGV[1])
local chosen, found = draws(ARGV[2], now), {}
if not chosen then return { -1, now } end
for _, draw in ipairs(chosen) do
  found[#found + 1] = draw.chosen
  for _, sum in ipairs({ sums(draw, true) }) do found[#found + 1] = sum end
end
return found
