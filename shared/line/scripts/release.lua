-- Give an event back: to the end of the line of events if it still has work, or behind a delay.
-- ARGV: event_id, token, worker, delay_ms, the newest token that the database has seen (0 if that is not in question).
local newest = tonumber(ARGV[5])
local key = K.event .. ARGV[1]
if holds_claim(ARGV[1], ARGV[2]) then
  release(ARGV[1], ARGV[3], tonumber(ARGV[4]))
end
if newest > (tonumber(redis.call('HGET', key, 'token')) or 0) then
  redis.call('HSET', key, 'token', newest)
end
return 1
