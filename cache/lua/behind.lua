-- ARGV: number lease_ms. How many replicas told within the lease how far they are and have not come to this change.
local now = redis.call('TIME')
local now_ms = tonumber(now[1]) * 1000 + math.floor(tonumber(now[2]) / 1000)
local era, behind = redis.call('GET', root .. 'era'), 0
local told = redis.call('HGETALL', root .. 'replicas')
for at = 1, #told, 2 do
  local their_era, number, at_ms = told[at + 1]:match('^(%S*) (%S+) (%S+)$')
  local age_ms = now_ms - tonumber(at_ms)
  if age_ms > 3600000 then
    redis.call('HDEL', root .. 'replicas', told[at])
  elseif age_ms <= tonumber(ARGV[2]) and (their_era ~= era or tonumber(number) < tonumber(ARGV[1])) then
    behind = behind + 1
  end
end
return behind
