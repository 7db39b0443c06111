-- What all scripts of the cache share. Every key carries the hash tag {cache}, so that each step is atomic in a cluster too.
local root = 'headgate:1:{cache}:'
local changes = root .. 'changes'

local function shelf(tenant)
  local prefix = root .. 't:' .. tenant .. ':'
  return {
    entry = root .. 'e:' .. tenant .. ':', key = root .. 'k:' .. tenant .. ':',
    ranks = prefix .. 'ranks', ends = prefix .. 'ends', labels = prefix .. 'labels',
    vectors = prefix .. 'vectors', totals = prefix .. 'totals',
  }
end

-- Forget one entry of a tenant; false when there is none.
local function drop(s, id)
  local label = redis.call('HGET', s.labels, id)
  if not label then
    return false
  end
  local size, worth, exact, normalised = label:match('^(%S+) (%S+) (%S+) (%S+)$')
  redis.call('DEL', s.entry .. id)
  for _, key in ipairs({exact, normalised}) do
    if redis.call('GET', s.key .. key) == id then
      redis.call('DEL', s.key .. key)
    end
  end
  redis.call('HDEL', s.labels, id)
  redis.call('HDEL', s.vectors, id)
  redis.call('ZREM', s.ranks, id)
  redis.call('ZREM', s.ends, id)
  redis.call('HINCRBY', s.totals, 'bytes', -tonumber(size))
  return true
end

-- Forget up to `limit` expired entries of a tenant and add their ids to `gone`.
local function expire(s, now_ms, limit, gone)
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', s.ends, '-inf', now_ms, 'LIMIT', 0, limit)) do
    drop(s, id)
    gone[#gone + 1] = id
  end
end

-- Tell all replicas; the running number lets them notice what they missed, the era that another history began.
local function announce(most, tenant, id, vector, gone)
  local era = redis.call('GET', root .. 'era')
  if not era then
    local now = redis.call('TIME')
    era = now[1] .. '.' .. now[2]
    redis.call('SET', root .. 'era', era)
  end
  local number = redis.call('INCR', root .. 'number')
  redis.call('XADD', changes, 'MAXLEN', '~', most, '*', 'era', era, 'n', number, 't', tenant,
    'id', id, 'v', vector, 'gone', table.concat(gone, ' '))
  return number
end
