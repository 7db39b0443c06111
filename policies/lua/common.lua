-- Shared by all scripts of the ledger, version 1. All keys of a call carry one hash tag, {tenant}.
-- KEYS: lines, holds, leases, reaped, closed, ends. Amounts are nano-USD; sums stay below 2^53, where doubles are exact.
local LINES, HOLDS, LEASES, REAPED, CLOSED, ENDS = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local SEPARATOR = '\31'
local CLOSED_LATE = '\30' -- marks reaped holds among the things to be dropped some day
local REMEMBERED = 100000

-- The server's time in ms, unless the caller gives one (simulations do).
local function present(given)
  if given ~= '0' then return tonumber(given) end
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function whole(number) return string.format('%.0f', number) end

local function sum(line, kind) return tonumber(redis.call('HGET', LINES, line .. SEPARATOR .. kind) or '0') end

local function add(line, kind, amount)
  if amount ~= 0 then redis.call('HINCRBY', LINES, line .. SEPARATOR .. kind, whole(amount)) end
end

-- Remember when the line's window ends, so that it can be dropped long after.
local function touch(line) redis.call('ZADD', ENDS, 'NX', string.match(line, '(%d+)$'), line) end

local function tier_of(line) return string.match(line, '^[^' .. SEPARATOR .. ']*' .. SEPARATOR .. '([^' .. SEPARATOR .. ']*)') end

-- Read the limits from ARGV[first] on: prefix, limit, then three windows (start in ms, id and end) around the client's
-- present; the server's clock chooses among them.
local function limits(first, now)
  local found = {}
  for at = first, #ARGV, 8 do
    local chosen = 1
    for window = 2, 3 do
      if now >= tonumber(ARGV[at + 2 * window]) then chosen = window end
    end
    found[#found + 1] = {
      line = ARGV[at] .. SEPARATOR .. ARGV[at + 2 * chosen + 1], limit = tonumber(ARGV[at + 1]), window = chosen
    }
  end
  return found
end

local function distinct(chosen)
  local lines, seen = {}, {}
  for _, limit in ipairs(chosen) do
    if not seen[limit.line] then
      seen[limit.line] = true
      lines[#lines + 1] = limit.line
    end
  end
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
