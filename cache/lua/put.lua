-- ARGV: tenant id exact normalised size worth now_ms ends_ms answer vector most_entries most_bytes most_changes
local tenant, id, exact, normalised = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local size, worth, now_ms, ends_ms = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8])
local s, gone = shelf(tenant), {}

drop(s, id)
for _, key in ipairs({exact, normalised}) do
  local old = redis.call('GET', s.key .. key)
  if old then
    if drop(s, old) then
      gone[#gone + 1] = old
    else
      redis.call('DEL', s.key .. key)
    end
  end
end
expire(s, now_ms, 100, gone)

local floor = tonumber(redis.call('HGET', s.totals, 'floor') or 0)
while redis.call('ZCARD', s.ranks) >= tonumber(ARGV[11])
  or tonumber(redis.call('HGET', s.totals, 'bytes') or 0) + size > tonumber(ARGV[12]) do
  local least = redis.call('ZRANGE', s.ranks, 0, 0, 'WITHSCORES')
  if not least[1] then
    break
  end
  floor = tonumber(least[2])
  drop(s, least[1])
  gone[#gone + 1] = least[1]
end

redis.call('SADD', root .. 'tenants', tenant)
local number = announce(ARGV[13], tenant, id, ARGV[10], gone)
local life_ms = ends_ms - now_ms
redis.call('SET', s.entry .. id, ARGV[9], 'PX', string.format('%.0f', life_ms))
redis.call('SET', s.key .. exact, id, 'PX', string.format('%.0f', life_ms))
redis.call('SET', s.key .. normalised, id, 'PX', string.format('%.0f', life_ms))
redis.call('HSET', s.labels, id, table.concat({ARGV[5], ARGV[6], exact, normalised}, ' '))
if ARGV[10] ~= '' then
  redis.call('HSET', s.vectors, id, ARGV[10])
end
redis.call('HINCRBY', s.totals, 'bytes', size)
redis.call('HSET', s.totals, 'floor', string.format('%.17g', floor))
-- The running number breaks ties: of equals the oldest goes first.
redis.call('ZADD', s.ranks, string.format('%.17g', floor + worth + number * 1e-9), id)
redis.call('ZADD', s.ends, string.format('%.0f', ends_ms), id)
return gone
