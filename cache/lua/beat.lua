-- ARGV: replica era number. A replica tells how far it has come; the time is the server's.
local now = redis.call('TIME')
local now_ms = tonumber(now[1]) * 1000 + math.floor(tonumber(now[2]) / 1000)
redis.call('HSET', root .. 'replicas', ARGV[1], table.concat({ARGV[2], ARGV[3], string.format('%.0f', now_ms)}, ' '))
return now_ms
