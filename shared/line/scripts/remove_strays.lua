-- Take off RQ's list what heads it without waiting in the line: a job that some other program has pushed
-- there fails, one of ours that was requeued after it was done gets its status back.
-- ARGV: event_id, failure_ttl, exc_string. Gives the number of foreign jobs.
local event_id, failure_ttl, exc_string = ARGV[1], tonumber(ARGV[2]), ARGV[3]
local foreign = 0

local function give_status_back(id)
  local latest = redis.call('XREVRANGE', K.rq_results .. id, '+', '-', 'COUNT', 1)[1]
  local failed = latest and latest[2][2] ~= '1'
  redis.call('HSET', K.rq_job .. id, 'status', failed and 'failed' or 'finished')
  redis.call('EXPIRE', K.rq_job .. id, failure_ttl)
end

local function fail(id)
  foreign = foreign + 1
  local now_seconds = tonumber(redis.call('TIME')[1])
  local registry = K.rq_failed .. K.queue_name_prefix .. event_id
  redis.call('HSET', K.rq_job .. id, 'status', 'failed')
  redis.call('EXPIRE', K.rq_job .. id, failure_ttl)
  redis.call('XADD', K.rq_results .. id, 'MAXLEN', K.result_stream_length_max, '*', 'type', 2,
    'worker_name', '', 'exc_string', exc_string)
  redis.call('EXPIRE', K.rq_results .. id, failure_ttl)
  redis.call('ZADD', registry, now_seconds + failure_ttl, id)
  redis.call('EXPIRE', registry, failure_ttl)
end

for _ = 1, K.strays_removed_max do
  local id = redis.call('LINDEX', queue_key(event_id), 0)
  if not id or not is_stray(event_id, id) then
    break
  end
  redis.call('LPOP', queue_key(event_id))
  if redis.call('HEXISTS', K.rq_job .. id, 'position') == 1 then
    give_status_back(id)
  elseif redis.call('EXISTS', K.rq_job .. id) == 1 then
    fail(id)
  end
end
return foreign
