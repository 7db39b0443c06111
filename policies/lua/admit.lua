-- Take a request, its tokens and a slot in every scope or in none, and read the standing.
-- KEYS: the ledger's eight, then rate and slots of each scope. ARGV: now or 0, tokens, replica, lease of slots in ms,
-- scopes {{requests, tokens, concurrency}, ...} (packed, 0: unlimited), draws (packed).
-- Returns {1 taken | 0 refused, scope, kind (1 requests, 2 tokens, 3 concurrency), wait in us, {behind in us of requests
-- and tokens of each scope}, {sums as sums.lua}}; {-1, now} as `reserve` does.
local now = present(ARGV[1])
local now_us = now * 1000
local tokens, replica, lease_ms = tonumber(ARGV[2]), ARGV[3], tonumber(ARGV[4])
local scopes = cmsgpack.unpack(ARGV[5])
local chosen = draws(ARGV[6], now)
if not chosen then return { -1, now } end
local PERIOD_US = 60000000
local KINDS = { 'requests', 'tokens' }
local costs = { 1, tokens }

local full_at, own, behind, worst = {}, {}, {}, nil
for at, scope in ipairs(scopes) do
  local rate_key, slots_key = KEYS[7 + 2 * at], KEYS[8 + 2 * at]
  local known = redis.call('HMGET', rate_key, 'requests', 'tokens')
  full_at[at] = {}
  for kind = 1, 2 do
    local full = math.max(tonumber(known[kind] or '0'), now_us)
    full_at[at][kind] = full
    behind[#behind + 1] = full - now_us
    if scope[kind] > 0 then
      local wait = full - now_us + math.min(costs[kind] / scope[kind], 1) * PERIOD_US - PERIOD_US
      if wait > 1 and (not worst or (worst[2] < 3 and wait > worst[3])) then worst = { at, kind, wait } end
    end
  end
  if scope[3] > 0 then
    local used = 0
    own[at] = 0
    local slots = redis.call('HGETALL', slots_key)
    for field = 1, #slots, 2 do
      local slot = cmsgpack.unpack(slots[field + 1])
      if slot[2] <= now then
        redis.call('HDEL', slots_key, slots[field])
      else
        used = used + slot[1]
        if slots[field] == replica then own[at] = slot[1] end
      end
    end
    if used >= scope[3] then worst = { at, 3, 0 } end
  end
end
if worst then return { 0, worst[1], worst[2], math.ceil(worst[3]), behind } end
behind = {}
for at, scope in ipairs(scopes) do
  local rate_key, slots_key = KEYS[7 + 2 * at], KEYS[8 + 2 * at]
  local latest = 0
  for kind = 1, 2 do
    local full = full_at[at][kind]
    if scope[kind] > 0 then
      full = full + costs[kind] / scope[kind] * PERIOD_US
      redis.call('HSET', rate_key, KINDS[kind], whole(full))
      latest = math.max(latest, full)
    end
    behind[#behind + 1] = math.ceil(full - now_us)
  end
  if latest > 0 then redis.call('PEXPIRE', rate_key, whole(math.ceil((latest - now_us) / 1000) + 60000)) end
  if scope[3] > 0 then
    redis.call('HSET', slots_key, replica, cmsgpack.pack({ own[at] + 1, now + lease_ms }))
    redis.call('PEXPIRE', slots_key, whole(10 * lease_ms))
  end
end
local found = {}
for _, draw in ipairs(chosen) do
  found[#found + 1] = draw.chosen
  for _, sum in ipairs({ sums(draw, true) }) do found[#found + 1] = sum end
end
return { 1, 0, 0, 0, behind, found }
