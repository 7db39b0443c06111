-- Shared by all scripts of the ledger, version 2. All keys of a call carry one hash tag, {tenant}.
-- KEYS: lines, holds, leases, reaped, closed, ends, slices, alerts. Amounts are nano-USD; sums stay below 2^53, where
-- doubles are exact. A line is one account in one window, or in one part of a rolling window; its fields are r
-- (reserved), s (spent), u (unconfirmed), g (granted), l (leased to replicas, part of r), q (no slices until then, ms)
-- and n (accounts of end users in this window).
local LINES, HOLDS, LEASES, REAPED = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local CLOSED, ENDS, SLICES, ALERTS = KEYS[5], KEYS[6], KEYS[7], KEYS[8]
local SEPARATOR = '\31'
local CLOSED_LATE = '\30' -- marks reaped holds among the things to be dropped some day
local REMEMBERED = 100000
local PARTS = 60

-- The server's time in ms, unless the caller gives one (simulations do).
local function present(given)
  if given ~= '0' then return tonumber(given) end
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function whole(number) return string.format('%.0f', number) end

local function add(line, kind, amount)
  if amount ~= 0 then redis.call('HINCRBY', LINES, line .. SEPARATOR .. kind, whole(amount)) end
end

local function end_of(line) return tonumber(string.match(line, '(%d+)$')) end

-- Remember when the line's window ends, so that it can be dropped long after; count new accounts of end users.
local function touch(line, others)
  local is_new = redis.call('ZADD', ENDS, 'NX', string.match(line, '(%d+)$'), line)
  if is_new == 1 and others then
    redis.call('HINCRBY', LINES, others .. SEPARATOR .. 'n', 1)
    redis.call('ZADD', ENDS, 'NX', string.match(others, '(%d+)$'), others)
  end
end

-- A line begins with key, user and tier.
local function tier_of(line)
  local rest = '[^' .. SEPARATOR .. ']*' .. SEPARATOR
  return string.match(line, '^' .. rest .. rest .. '([^' .. SEPARATOR .. ']*)')
end

-- Read packed budgets: {prefix, limit (-1: soft), length of a part in ms (0: calendar), prefix of all further users,
-- most users, then for a calendar three windows around the client's present (start, id and end) and the last end}. The
-- server's clock chooses the window. Nothing comes back when the client's clock is so wrong that none of them fits.
local function draws(packed, now)
  local found = {}
  for at, budget in ipairs(cmsgpack.unpack(packed)) do
    local id, chosen, until_ms
    if budget[3] > 0 then
      chosen = math.floor(now / budget[3])
      until_ms = (chosen + 1) * budget[3]
      id = whole(chosen) .. SEPARATOR .. whole((chosen + 1 + PARTS) * budget[3])
    else
      if now < budget[6] or now >= budget[12] then return nil end
      chosen = 1
      if now >= budget[10] then chosen = 3 elseif now >= budget[8] then chosen = 2 end
      id = budget[5 + 2 * chosen]
      until_ms = end_of(id)
    end
    local line, others = budget[1] .. SEPARATOR .. id, nil
    local prefix = budget[1]
    if budget[4] ~= '' then
      others = budget[4] .. SEPARATOR .. id
      local count = tonumber(redis.call('HGET', LINES, others .. SEPARATOR .. 'n') or '0')
      if count >= budget[5] and not redis.call('ZSCORE', ENDS, line) then line, prefix = others, budget[4] end
    end
    found[at] = {
      line = line, prefix = prefix, limit = budget[2], part = budget[3], chosen = chosen, until_ms = until_ms,
      others = others
    }
  end
  return found
end

-- Sum up what counts for a budget now: reserved, spent, granted (and unconfirmed and leased, if all are wanted).
local function sums(draw, all)
  local kinds, names = all and { 'r', 's', 'g', 'u', 'l' } or { 'r', 's', 'g' }, {}
  if draw.part == 0 then
    for at, kind in ipairs(kinds) do names[at] = draw.line .. SEPARATOR .. kind end
  else
    for part = draw.chosen - PARTS, draw.chosen do
      local line = draw.prefix .. SEPARATOR .. whole(part) .. SEPARATOR .. whole((part + 1 + PARTS) * draw.part)
      for _, kind in ipairs(kinds) do names[#names + 1] = line .. SEPARATOR .. kind end
    end
  end
  local values, found = redis.call('HMGET', LINES, unpack(names)), { 0, 0, 0, 0, 0 }
  for at, value in ipairs(values) do
    if value then
      local kind = (at - 1) % #kinds + 1
      found[kind] = found[kind] + tonumber(value)
    end
  end
  return unpack(found)
end

local function distinct(chosen)
  local found, seen = {}, {}
  for _, draw in ipairs(chosen) do
    if not seen[draw.line] then
      seen[draw.line] = true
      found[#found + 1] = draw
    end
  end
  return found
end

local function lines_of(chosen)
  local lines = {}
  for at, draw in ipairs(distinct(chosen)) do lines[at] = draw.line end
  return lines
end

-- A hold is kept as its amount and its lines.
local function pack(amount, lines) return amount .. '\n' .. table.concat(lines, '\n') end

local function unpack_hold(packed)
  local amount, lines = nil, {}
  for part in string.gmatch(packed, '[^\n]+') do
    if amount == nil then amount = tonumber(part) else lines[#lines + 1] = part end
  end
  return amount, lines
end

local function close(id, now)
  redis.call('ZADD', CLOSED, whole(now), id)
  if redis.call('ZCARD', CLOSED) > REMEMBERED then redis.call('ZREMRANGEBYRANK', CLOSED, 0, 0) end
end

-- What each draw has spent and was granted, flat, for the client to see which alerts are due.
local function spent_now(chosen)
  local found = {}
  for _, draw in ipairs(chosen) do
    local _, spent, granted = sums(draw)
    found[#found + 1] = spent
    found[#found + 1] = granted
    found[#found + 1] = draw.chosen
  end
  return found
end
