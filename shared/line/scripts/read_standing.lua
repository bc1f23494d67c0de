-- How lines stand: what a box office watches.
-- ARGV: event ids. Gives per event: commands waiting, the first one's accepted_at or '', the position accepted last and
-- the one applied last, each or '' if Redis does not know the event (any more), rate or ''.
local answers = {}
for _, event_id in ipairs(ARGV) do
  local first = redis.call('LINDEX', K.order .. event_id, 0)
  local event = redis.call('HMGET', K.event .. event_id, 'accepted', 'applied', 'drained', 'draining_ms', 'moved')
  answers[#answers + 1] = redis.call('LLEN', K.order .. event_id)
  answers[#answers + 1] = first and redis.call('HGET', K.rq_job .. first, 'created_at') or ''
  answers[#answers + 1] = event[1] or ''
  answers[#answers + 1] = event[2] or ''
  answers[#answers + 1] = drain_rate(event[3], event[4], event[5])
end
return answers
