-- ARGV: tenant key. Returns id, answer, vector, or nothing; reading lifts the entry above the floor, never its time to live.
local s = shelf(ARGV[1])
local id = ARGV[2]
local answer = redis.call('GET', s.entry .. id)
if not answer then
  id = redis.call('GET', s.key .. ARGV[2])
  answer = id and redis.call('GET', s.entry .. id)
  if not answer then
    return {}
  end
end
local floor = tonumber(redis.call('HGET', s.totals, 'floor') or 0)
if floor > 0 then
  local label = redis.call('HGET', s.labels, id)
  if label then
    local worth = tonumber(label:match('^%S+ (%S+)'))
    redis.call('ZADD', s.ranks, 'XX', 'GT', string.format('%.17g', floor + worth), id)
  end
end
return {id, answer, redis.call('HGET', s.vectors, id) or ''}
