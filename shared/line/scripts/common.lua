-- What the scripts share. K holds the names of keys and the bounds; it is written by scripts.py.

local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function queue_key(event_id)
  return K.rq_queue .. K.queue_name_prefix .. event_id
end

-- How fast a line drains, in commands a second; '' where nobody can tell, because it has not moved yet or stands still.
-- The time since it moved last counts too, so that a line that comes to a stop promises less and less.
local function drain_rate(drained, draining_ms, moved)
  local still_ms = math.max(now_ms() - (tonumber(moved) or 0), 0)
  if not drained or still_ms > K.standstill_ms then
    return ''
  end
  return string.format('%.3f', drained * 1000 / (draining_ms + still_ms))
end

-- Put an event on the index of those that need a consumer, unless one has it, and wake a sleeper.
-- One that is ready later wakes nobody: whoever looks before then learns when it is due.
local function make_ready(event_id, delay_ms)
  if redis.call('ZSCORE', K.leased, event_id) then
    return
  end
  if redis.call('ZADD', K.ready, 'NX', now_ms() + delay_ms, event_id) == 1
      and delay_ms == 0 and redis.call('LLEN', K.wake) < K.wake_tokens_max then
    redis.call('RPUSH', K.wake, '1')
  end
end

local function first(...)
  return redis.call(...)[1]
end

-- The event whose consumer has let its claim pass longest ago, and the one that has waited for a consumer longest.
-- A time further ahead than any claim or delay may last comes from before the clock was set back.
local function lapsed_event(now)
  return first('ZRANGEBYSCORE', K.leased, '-inf', now, 'LIMIT', 0, 1)
    or first('ZRANGEBYSCORE', K.leased, '(' .. now + K.lease_ms_max, '+inf', 'LIMIT', 0, 1)
end

local function ready_event(now)
  return first('ZRANGEBYSCORE', K.ready, '-inf', now, 'LIMIT', 0, 1)
    or first('ZRANGEBYSCORE', K.ready, '(' .. now + K.ready_delay_ms_max, '+inf', 'LIMIT', 0, 1)
end

local function first_score(key)
  return tonumber(redis.call('ZRANGE', key, 0, 0, 'WITHSCORES')[2])
end

-- How long nothing can need a consumer unless somebody is woken: until the first claim may lapse, or the first event
-- that was put off is due. False where there is none of either.
local function quiet_ms(now)
  local due = math.min(first_score(K.leased) or math.huge, first_score(K.ready) or math.huge)
  return due < math.huge and due - now
end

-- Whoever holds the newest token and has not given the event back is its consumer.
local function holds_claim(event_id, token)
  return redis.call('HGET', K.event .. event_id, 'token') == token
    and redis.call('ZSCORE', K.leased, event_id) ~= false
end

-- RQ lists a worker under its queue. Ours stays under the one that it worked on last until it takes another,
-- so that `rq info` shows idle workers too. An entry that has expired is not brought back by half: the next
-- heartbeat writes all of it.
local function show_busy(worker, event_id)
  local key, queue = K.rq_worker .. worker, K.queue_name_prefix .. event_id
  local last_queue = redis.call('HGET', key, 'queues')
  if not last_queue then
    return
  end
  if last_queue ~= '' and last_queue ~= queue then
    redis.call('SREM', K.rq_workers_of_queue .. last_queue, key)
  end
  redis.call('HSET', key, 'state', 'busy', 'queues', queue)
  redis.call('SADD', K.rq_workers_of_queue .. queue, key)
end

local function show_idle(worker)
  local key = K.rq_worker .. worker
  if redis.call('EXISTS', key) == 1 then
    redis.call('HSET', key, 'state', 'idle')
  end
end

local function release(event_id, worker, delay_ms)
  redis.call('ZREM', K.leased, event_id)
  redis.call('HDEL', K.event .. event_id, 'consumer')
  show_idle(worker)
  if redis.call('LLEN', K.order .. event_id) > 0 or redis.call('LLEN', queue_key(event_id)) > 0 then
    make_ready(event_id, delay_ms)
  end
end

-- Commands of the line after the first `skip`, without removing them: {id, data, created_at, position, marks, trace} each.
-- The last in line has the position that was given last. A job that stands before its own position was deleted from
-- outside and accepted again since: what it says belongs to the later place, and here nothing is known any more.
local function peek(event_id, skip, count)
  if count == 0 then
    return {}
  end
  local ids = redis.call('LRANGE', K.order .. event_id, skip, skip + count - 1)
  local accepted = tonumber(redis.call('HGET', K.event .. event_id, 'accepted')) or math.huge
  local before = accepted - redis.call('LLEN', K.order .. event_id) + skip
  local commands = {}
  for index, id in ipairs(ids) do
    local fields = redis.call('HMGET', K.rq_job .. id, 'data', 'created_at', 'position', 'marks', 'trace')
    if (tonumber(fields[3]) or 0) > before + index then
      commands[index] = {id, false, false, false, false, false}
    else
      commands[index] = {id, fields[1], fields[2], fields[3], fields[4], fields[5]}
    end
  end
  return commands
end

-- A stray is what heads RQ's list without waiting in the line: a foreign job, or one that was requeued after
-- it was done. One that waits further back heads RQ's list where others before it were popped.
local function is_stray(event_id, id)
  local first = redis.call('LINDEX', K.order .. event_id, 0)
  if not first then
    return true
  end
  local position = tonumber(redis.call('HGET', K.rq_job .. id, 'position'))
  local first_position = tonumber(redis.call('HGET', K.rq_job .. first, 'position'))
    or (tonumber(redis.call('HGET', K.event .. event_id, 'applied')) or 0) + 1
  return id ~= first and (not position or position < first_position)
end

local function has_stray(event_id)
  local head = redis.call('LINDEX', queue_key(event_id), 0)
  return head and is_stray(event_id, head) and 1 or 0
end
