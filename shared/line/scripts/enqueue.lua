-- Accept commands: give each its position and put it on the line, all or nothing, in one step.
-- ARGV: line_length_max, accepted_at, then per command: job_id, event_id, data, description, reply_to,
-- marks, trace or ''. Gives per command: code, position, applied, rate. A command that is known keeps what it got
-- the first time, and its data come in the place of the rate; one that comes before the sales gets the time when
-- they open there.
local ACCEPTED, KNOWN, UNKNOWN_EVENT, LINE_FULL, SALES_NOT_OPEN = 1, 2, -1, -2, -3
local line_length_max, accepted_at = tonumber(ARGV[1]), ARGV[2]
local lines, touched, answers = {}, {}, {}

local function line_of(event_id)
  if not lines[event_id] then
    local known = redis.call('HMGET', K.event .. event_id,
      'accepted', 'applied', 'drained', 'draining_ms', 'moved', 'opens_at')
    local length = redis.call('LLEN', K.order .. event_id)
    local begins = length == 0
    lines[event_id] = {
      accepted = tonumber(known[1]),
      applied = tonumber(known[2]) or 0,
      rate = drain_rate(known[3], known[4], begins and now_ms() or known[5]),
      opens_at = known[6] or '',
      length = length,
      begins = begins,
      new_ids = {},
    }
    touched[#touched + 1] = event_id
  end
  return lines[event_id]
end

local function accept(line, job_id, event_id, data, description, reply_to, marks, trace)
  line.accepted = line.accepted + 1
  line.length = line.length + 1
  line.new_ids[#line.new_ids + 1] = job_id
  redis.call('HSET', K.rq_job .. job_id,
    'data', data, 'created_at', accepted_at, 'enqueued_at', accepted_at, 'position', line.accepted,
    'origin', K.queue_name_prefix .. event_id, 'status', 'queued', 'description', description)
  if reply_to ~= '' then
    redis.call('HSET', K.rq_job .. job_id, 'reply_to', reply_to)
  end
  if marks ~= '' then
    redis.call('HSET', K.rq_job .. job_id, 'marks', marks)
  end
  if trace ~= '' then
    redis.call('HSET', K.rq_job .. job_id, 'trace', trace)
  end
  return line.accepted
end

-- Its position and its data. Most are new, and whether one is costs less to ask than what it has.
local function known_job(job_id)
  local key = K.rq_job .. job_id
  if redis.call('EXISTS', key) == 0 then
    return {}
  end
  return redis.call('HMGET', key, 'position', 'data')
end

local function answer(code, position, line, data)
  answers[#answers + 1] = code
  answers[#answers + 1] = position
  answers[#answers + 1] = line.applied
  answers[#answers + 1] = data or line.rate
end

-- Within a text of JSON the quotes would be escaped.
local function is_booking(data)
  return string.find(data, '"kind":"book"', 1, true)
end

for index = 3, #ARGV, 7 do
  local job_id, event_id = ARGV[index], ARGV[index + 1]
  local line = line_of(event_id)
  local known = known_job(job_id)
  if known[1] then
    -- Written again, as replicas are waited for (WAITAOF) only for what the same connection has written.
    redis.call('HSET', K.rq_job .. job_id, 'position', known[1])
    answer(KNOWN, tonumber(known[1]), line, known[2] or '')
  elseif not line.accepted then
    answer(UNKNOWN_EVENT, 0, line)
  elseif accepted_at < line.opens_at and is_booking(ARGV[index + 2]) then
    answer(SALES_NOT_OPEN, 0, line, line.opens_at)
  elseif line.length >= line_length_max then
    answer(LINE_FULL, 0, line)
  else
    local position = accept(line, job_id, event_id, ARGV[index + 2], ARGV[index + 3], ARGV[index + 4], ARGV[index + 5],
      ARGV[index + 6])
    answer(ACCEPTED, position, line)
  end
end

for _, event_id in ipairs(touched) do
  local line = lines[event_id]
  if #line.new_ids > 0 then
    redis.call('HSET', K.event .. event_id, 'accepted', line.accepted)
    if line.begins then
      redis.call('HSET', K.event .. event_id, 'moved', now_ms())
    end
    redis.call('EXPIRE', K.event .. event_id, K.event_ttl_seconds)
    redis.call('RPUSH', K.order .. event_id, unpack(line.new_ids))
    redis.call('RPUSH', queue_key(event_id), unpack(line.new_ids))
    redis.call('SADD', K.rq_queues, queue_key(event_id))
    make_ready(event_id, 0)
  end
end
return answers
