-- Put commands back before the head of a line: those whose outcome the database has lost.
-- ARGV: event_id, the position that heads the line now, created_at, data of a lost command, whether the event may be
-- worked on after this ('1' or ''), then job_id of each command, from the newest position to the oldest. One
-- that Redis remembers becomes what it was when it was accepted; any other becomes a lost command.
-- Gives 1, or 0 if another position heads the line and nothing was done.
local event_id, first, created_at, lost_data = ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4]
local order, queue = K.order .. event_id, K.queue_name_prefix .. event_id
local FIRST_COMMAND = 6

local accepted = tonumber(redis.call('HGET', K.event .. event_id, 'accepted'))
if not accepted or accepted - redis.call('LLEN', order) + 1 ~= first then
  return 0
end

local function put_back(job_id, position)
  local key = K.rq_job .. job_id
  if tonumber(redis.call('HGET', key, 'position')) == position then
    redis.call('HDEL', key, 'completed', 'started_at', 'ended_at', 'worker_name')
    redis.call('PERSIST', key)
    redis.call('DEL', K.rq_results .. job_id)
    redis.call('ZREM', K.rq_finished .. queue, job_id)
    redis.call('ZREM', K.rq_failed .. queue, job_id)
  else
    redis.call('HSET', key, 'data', lost_data, 'created_at', created_at, 'enqueued_at', created_at,
      'position', position, 'origin', queue, 'description', K.mark_lost, 'marks', K.mark_lost)
  end
  redis.call('HSET', key, 'status', 'queued')
  redis.call('LPUSH', order, job_id)
  redis.call('LPUSH', queue_key(event_id), job_id)
end

for index = FIRST_COMMAND, #ARGV do
  put_back(ARGV[index], first - 1 - (index - FIRST_COMMAND))
end
redis.call('SADD', K.rq_queues, queue_key(event_id))
if ARGV[5] == '1' then
  redis.call('ZREM', K.ready, event_id)
  make_ready(event_id, 0)
end
return 1
