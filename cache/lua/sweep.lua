-- ARGV: tenant now_ms limit most_changes. Forget expired entries, so that they leave every replica's index.
local s, gone = shelf(ARGV[1]), {}
expire(s, tonumber(ARGV[2]), tonumber(ARGV[3]), gone)
if #gone > 0 then
  announce(ARGV[4], ARGV[1], '', '', gone)
end
if redis.call('EXISTS', s.ends) == 0 then
  redis.call('DEL', s.totals)
  redis.call('SREM', root .. 'tenants', ARGV[1])
end
return #gone
