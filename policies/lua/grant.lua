-- Raise the limits of one account once. ARGV: now or 0, id, amount or 'reset', draw.
-- Returns {1}, {0} when more would be taken back than was granted, or {-1, now} as `reserve` does.
local now, id = present(ARGV[1]), ARGV[2]
if redis.call('ZSCORE', CLOSED, id) then return { 1 } end
local chosen = draws(ARGV[4], now)
if not chosen then return { -1, now } end
local _, spent, granted = sums(chosen[1])
local amount = ARGV[3] == 'reset' and math.max(0, spent - granted) or tonumber(ARGV[3])
if granted + amount < 0 then return { 0 } end
add(chosen[1].line, 'g', amount)
touch(chosen[1].line, chosen[1].others)
close(id, now)
return { 1 }
