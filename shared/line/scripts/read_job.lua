-- Read a job and its place in line; if it is not done, have its result sent to a channel.
-- ARGV: job_id, channel ('' for none).
-- Gives false if Redis does not know (any more), or: data, created_at, position, origin, return_value or false, applied, rate.
local key = K.rq_job .. ARGV[1]
local fields = redis.call('HMGET', key, 'data', 'created_at', 'position', 'origin', 'reply_to', 'completed')
if not fields[1] or not fields[3] then
  return false
end

local function return_value()
  local latest = redis.call('XREVRANGE', K.rq_results .. ARGV[1], '+', '-', 'COUNT', 1)[1]
  if not latest then
    return false
  end
  for index = 1, #latest[2], 2 do
    if latest[2][index] == 'return_value' then
      return latest[2][index + 1]
    end
  end
  return false
end

local result = return_value()
if fields[6] and not result then
  -- Somebody has deleted it; the ledger has it.
  return false
end
if not result and ARGV[2] ~= '' and not string.find(fields[5] or '', ARGV[2], 1, true) then
  redis.call('HSET', key, 'reply_to', fields[5] and (fields[5] .. ',' .. ARGV[2]) or ARGV[2])
end
local event_id = string.sub(fields[4], #K.queue_name_prefix + 1)
local event = redis.call('HMGET', K.event .. event_id, 'applied', 'drained', 'draining_ms', 'moved')
return {fields[1], fields[2], fields[3], event_id, result, event[1], drain_rate(event[2], event[3], event[4])}
