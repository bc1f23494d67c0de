-- Remove all that Redis has of an event that is archived, a bounded part of it in one call.
-- ARGV: event_id, how many jobs. Gives 1 if there is more, 0 if nothing is left, -1 if commands still wait.
local event_id, count = ARGV[1], tonumber(ARGV[2])
local queue = K.queue_name_prefix .. event_id
if redis.call('LLEN', K.order .. event_id) > 0 then
  return -1
end
redis.call('DEL', K.event .. event_id)

for _, registry in ipairs({K.rq_finished .. queue, K.rq_failed .. queue}) do
  local job_ids = redis.call('ZRANGE', registry, 0, count - 1)
  for _, job_id in ipairs(job_ids) do
    redis.call('DEL', K.rq_job .. job_id, K.rq_results .. job_id)
    redis.call('ZREM', registry, job_id)
  end
  if #job_ids > 0 then
    return 1
  end
end
redis.call('DEL', queue_key(event_id), K.rq_workers_of_queue .. queue)
redis.call('SREM', K.rq_queues, queue_key(event_id))
redis.call('ZREM', K.ready, event_id)
redis.call('ZREM', K.leased, event_id)
return 0
