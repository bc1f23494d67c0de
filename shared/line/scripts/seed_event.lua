-- Rebuild what Redis knows of an event from what PostgreSQL knows. Positions never go back: the line may
-- hold commands that are accepted and not yet applied.
-- ARGV: event_id, view, applied, fencing_token, when sales open or ''.
local key, order = K.event .. ARGV[1], K.order .. ARGV[1]
local known = redis.call('HMGET', key, 'accepted', 'applied', 'token')
local applied = math.max(tonumber(ARGV[3]), tonumber(known[2]) or 0)

-- The position given last, from the line itself: that of the last command whose record is there, and one for
-- each behind it. What PostgreSQL has applied may still stand in the line, so the two can't be added up, unless
-- no record is there at all.
local function last_in_line()
  local length = redis.call('LLEN', order)
  for behind = 0, length - 1 do
    local id = redis.call('LINDEX', order, -1 - behind)
    local position = tonumber(redis.call('HGET', K.rq_job .. id, 'position'))
    if position then
      return position + behind
    end
  end
  return applied + length
end

local accepted = math.max(tonumber(known[1]) or last_in_line(), applied)
if tonumber(ARGV[3]) == applied then
  redis.call('HSET', key, 'view', ARGV[2], 'opens_at', ARGV[5])
end
redis.call('HSET', key, 'accepted', accepted, 'applied', applied,
  'token', math.max(tonumber(ARGV[4]), tonumber(known[3]) or 0))
redis.call('EXPIRE', key, K.event_ttl_seconds)
return 1
