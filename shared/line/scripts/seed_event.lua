-- Rebuild what Redis knows of an event from what PostgreSQL knows. Positions never go back: the line may
-- hold commands that are accepted and not yet applied.
-- ARGV: event_id, view, applied, fencing_token.
local key, order = K.event .. ARGV[1], K.order .. ARGV[1]
local known = redis.call('HMGET', key, 'accepted', 'applied', 'token')
local applied = math.max(tonumber(ARGV[3]), tonumber(known[2]) or 0)
local accepted = math.max(tonumber(known[1]) or 0, applied + redis.call('LLEN', order))
local last = redis.call('LINDEX', order, -1)
if last then
  accepted = math.max(accepted, tonumber(redis.call('HGET', K.rq_job .. last, 'position')) or 0)
end
if tonumber(ARGV[3]) == applied then
  redis.call('HSET', key, 'view', ARGV[2])
end
redis.call('HSET', key, 'accepted', accepted, 'applied', applied,
  'token', math.max(tonumber(ARGV[4]), tonumber(known[3]) or 0))
redis.call('EXPIRE', key, K.event_ttl_seconds)
return 1
