-- Take the event that has waited longest for a consumer, for a limited time, with a new fencing token.
-- ARGV: worker, lease_ms, batch_commands_max.
-- Gives event_id, token, the consumer it is taken over from or '', has_stray, commands. If no event needs a consumer:
-- for how many ms none will unless somebody is woken, or false if nothing tells.
local worker, lease_ms, count = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local now = now_ms()

local event_id = lapsed_event(now)
local taken_from = ''
if event_id then
  taken_from = redis.call('HGET', K.event .. event_id, 'consumer') or 'unknown'
  redis.call('SREM', K.rq_workers_of_queue .. K.queue_name_prefix .. event_id, K.rq_worker .. taken_from)
else
  event_id = ready_event(now)
end
if not event_id then
  return quiet_ms(now)
end

redis.call('ZREM', K.ready, event_id)
redis.call('ZADD', K.leased, now + lease_ms, event_id)
redis.call('HSET', K.event .. event_id, 'consumer', worker)
local token = redis.call('HINCRBY', K.event .. event_id, 'token', 1)
redis.call('EXPIRE', K.event .. event_id, K.event_ttl_seconds)
show_busy(worker, event_id)
return {event_id, token, taken_from, has_stray(event_id), peek(event_id, 0, count)}
