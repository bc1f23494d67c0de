-- How far lines have come, and how fast they drain.
-- ARGV: event ids. Gives per event: applied or false if Redis does not know the event (any more), rate or ''.
local answers = {}
for _, event_id in ipairs(ARGV) do
  local event = redis.call('HMGET', K.event .. event_id, 'applied', 'drained', 'draining_ms', 'moved')
  answers[#answers + 1] = event[1]
  answers[#answers + 1] = drain_rate(event[2], event[3], event[4])
end
return answers
