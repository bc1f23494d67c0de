-- Write the outcomes of an applied batch onto its jobs, take exactly those jobs off the line, refresh the
-- event's projection, tell who waits, keep or give back the claim, and look at the next batch.
-- Doing it again changes nothing.
-- ARGV: event_id, token, worker, lease_ms, started_at, ended_at, result_ttl, failure_ttl, applied, view,
--       when sales open or '', give_back ('if-empty', 'if-others-wait' or 'always'), skip, count, finished, then
--       job_id and return_value of each finished command, then job_id, return_value and exc_string of each failed
--       one. `skip` commands behind this batch are in the consumer's hands already; it wants `count` more. A claim
--       is given back with the last that it has in hand; one that is to be given back gets no more.
-- Gives: whether the claim is still held, has_stray, the next commands.
local event_id, token, worker, lease_ms = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local started_at, ended_at = ARGV[5], ARGV[6]
local result_ttl, failure_ttl, applied, view, opens_at = tonumber(ARGV[7]), tonumber(ARGV[8]), tonumber(ARGV[9]), ARGV[10], ARGV[11]
local give_back, skip, count = ARGV[12], tonumber(ARGV[13]), tonumber(ARGV[14])
local FIRST_FINISHED = 16
local FIRST_FAILED = FIRST_FINISHED + 2 * tonumber(ARGV[15])
local COMMANDS = tonumber(ARGV[15]) + (#ARGV - FIRST_FAILED + 1) / 3
local CHUNK = 1000
local queue = K.queue_name_prefix .. event_id
local now_seconds = tonumber(redis.call('TIME')[1])

local completed, registered, replies = {}, {finished = {}, failed = {}}, {}

local function reply(channels, job_id, return_value)
  for channel in string.gmatch(channels, '[^,]+') do
    local lines = replies[channel] or {}
    lines[#lines + 1] = job_id .. ' ' .. return_value
    replies[channel] = lines
  end
end

-- A job has one result, so its stream needs no bound.
local function write_outcome(job_id, status, ends_at, return_value, exc_string)
  completed[job_id] = true
  local key = K.rq_job .. job_id
  local fields = redis.call('HMGET', key, 'created_at', 'completed', 'reply_to')
  if not fields[1] then
    return
  end
  local members = registered[status]
  members[#members + 1] = ends_at
  members[#members + 1] = job_id
  if fields[2] then
    return
  end
  redis.call('HSET', key, 'status', status, 'started_at', started_at, 'ended_at', ended_at, 'worker_name', worker,
    'completed', '1')
  redis.call('PEXPIREAT', key, ends_at .. '000')
  local result = K.rq_results .. job_id
  if exc_string then
    redis.call('XADD', result, '*', 'type', '2', 'worker_name', worker, 'return_value', return_value,
      'exc_string', exc_string)
  else
    redis.call('XADD', result, '*', 'type', '1', 'worker_name', worker, 'return_value', return_value)
  end
  redis.call('PEXPIREAT', result, ends_at .. '000')
  if fields[3] then
    redis.call('HDEL', key, 'reply_to')
    reply(fields[3], job_id, return_value)
  end
end

-- Registries are sorted by the time when their entry ends; the longest lived entry ends the key.
local function register(prefix, members, ttl)
  if #members == 0 then
    return
  end
  local key = prefix .. queue
  for from = 1, #members, CHUNK * 2 do
    redis.call('ZADD', key, unpack(members, from, math.min(from + CHUNK * 2 - 1, #members)))
  end
  redis.call('ZREMRANGEBYSCORE', key, '-inf', now_seconds)
  redis.call('EXPIRE', key, ttl)
end

-- A stock worker may have failed a job that has now been applied.
local function unregister(prefix, members)
  local key = prefix .. queue
  if #members == 0 or redis.call('EXISTS', key) == 0 then
    return
  end
  for index = 2, #members, 2 do
    redis.call('ZREM', key, members[index])
  end
end

local function completed_at_head(key)
  local heads = redis.call('LRANGE', key, 0, COMMANDS - 1)
  local length = 0
  while heads[length + 1] and completed[heads[length + 1]] do
    length = length + 1
  end
  return heads, length
end

local function trim_order()
  local _, length = completed_at_head(K.order .. event_id)
  if length > 0 then
    redis.call('LTRIM', K.order .. event_id, length, -1)
  end
end

-- RQ's list may have been changed by others, so what is not at its head is looked for. What is not found near the
-- head is left: when it heads the list it is a stray.
local function trim_queue()
  local key = queue_key(event_id)
  local heads, length = completed_at_head(key)
  if length > 0 then
    redis.call('LTRIM', key, length, -1)
    for index = 1, length do
      completed[heads[index]] = nil
    end
  end
  if redis.call('LLEN', key) > 0 then
    for job_id in pairs(completed) do
      if redis.call('LPOS', key, job_id, 'MAXLEN', K.queue_search_max) then
        redis.call('LREM', key, 1, job_id)
      end
    end
  end
end

-- How many commands the last batches had, and how long they took, from when the line began to wait: what a batch
-- counts fades with each that follows. A long stop counts as a short one, so that it is forgotten soon after.
local function measure_drain(key, moves)
  local measured = redis.call('HMGET', key, 'drained', 'draining_ms', 'moved')
  if measured[3] then
    local took_ms = math.min(math.max(now_ms() - measured[3], 1), K.standstill_ms)
    redis.call('HSET', key, 'drained', (measured[1] or 0) * K.drain_memory + moves,
      'draining_ms', (measured[2] or 0) * K.drain_memory + took_ms)
  end
  redis.call('HSET', key, 'moved', now_ms())
end

local function refresh_projection()
  local key = K.event .. event_id
  local positions = redis.call('HMGET', key, 'applied', 'accepted')
  local before = tonumber(positions[1])
  if not before or applied > before then
    redis.call('HSET', key, 'applied', applied, 'view', view, 'opens_at', opens_at)
    if before then
      measure_drain(key, applied - before)
    end
  end
  if positions[2] and tonumber(positions[2]) < applied then
    redis.call('HSET', key, 'accepted', applied)
  end
  redis.call('EXPIRE', key, K.event_ttl_seconds)
end

local function is_stretch_over()
  if give_back == 'if-others-wait' then
    return lapsed_event(now_ms()) or ready_event(now_ms())
  end
  return give_back == 'always'
end

-- As text, like other numbers that are told of each job: Redis would write them out for each.
local finished_ends_at, failed_ends_at = tostring(now_seconds + result_ttl), tostring(now_seconds + failure_ttl)
for index = FIRST_FINISHED, FIRST_FAILED - 1, 2 do
  write_outcome(ARGV[index], 'finished', finished_ends_at, ARGV[index + 1])
end
for index = FIRST_FAILED, #ARGV, 3 do
  write_outcome(ARGV[index], 'failed', failed_ends_at, ARGV[index + 1], ARGV[index + 2])
end
register(K.rq_finished, registered.finished, result_ttl)
register(K.rq_failed, registered.failed, failure_ttl)
unregister(K.rq_failed, registered.finished)
trim_order()
trim_queue()
if view ~= '' then
  refresh_projection()
end
for channel, lines in pairs(replies) do
  redis.call('PUBLISH', channel, table.concat(lines, '\n'))
end

if not holds_claim(event_id, token) then
  return {0, 0, {}}
end
redis.call('ZADD', K.leased, now_ms() + lease_ms, event_id)
local is_over = is_stretch_over()
if skip == 0 and (is_over or (redis.call('LLEN', K.order .. event_id) == 0 and has_stray(event_id) == 0)) then
  release(event_id, worker, 0)
  return {0, 0, {}}
end
return {1, has_stray(event_id), peek(event_id, skip, is_over and 0 or count)}
