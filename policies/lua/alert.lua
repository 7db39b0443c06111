-- Claim alerts, so that one replica raises each. ARGV: now or 0, then name and silence for each: ms from now, or the end
-- of its window (ms) after a minus sign. Returns 1 or 0 for each.
local now, found = present(ARGV[1]), {}
redis.call('ZREMRANGEBYSCORE', ALERTS, '-inf', whole(now))
for at = 2, #ARGV, 2 do
  local silence = tonumber(ARGV[at + 1])
  found[#found + 1] = redis.call('ZADD', ALERTS, 'NX', whole(silence < 0 and -silence or now + silence), ARGV[at])
end
return found
