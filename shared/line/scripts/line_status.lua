-- What an operator watches: how long lines are and how long their first command has waited. It looks at the events
-- that need a consumer or have one, at no others and at no more than a bound, those that have waited longest first.
-- ARGV: how many of the longest lines to tell one by one, the queues of webhooks and of slow webhooks.
-- Gives: events waiting, events consumed, workers of lines, processes of webhooks, now in seconds, results kept, what `verify` found last (violations,
-- seconds), commands in all other lines, the oldest accepted_at of those or '', then event_id, commands and the
-- first command's accepted_at or '' of each of the longest.
local tell = tonumber(ARGV[1])
local lines, results = {}, 0

-- A worker that was killed stays on RQ's list without the key that expires.
local function alive(list)
  local count = 0
  for _, worker in ipairs(redis.call('SMEMBERS', list)) do
    count = count + redis.call('EXISTS', worker)
  end
  return count
end

local function look(index, bound)
  for _, event_id in ipairs(redis.call('ZRANGE', index, 0, bound - 1)) do
    local length = redis.call('LLEN', K.order .. event_id)
    results = results + redis.call('ZCARD', K.rq_finished .. K.queue_name_prefix .. event_id)
    if length > 0 then
      local first = redis.call('LINDEX', K.order .. event_id, 0)
      lines[#lines + 1] = {event_id, length, redis.call('HGET', K.rq_job .. first, 'created_at') or ''}
    end
  end
end

look(K.leased, K.lines_looked_at_max)
look(K.ready, K.lines_looked_at_max)
table.sort(lines, function(one, other)
  return one[2] > other[2]
end)

local others, oldest, told = 0, '', {}
for index, line in ipairs(lines) do
  if index <= tell then
    for _, value in ipairs(line) do
      told[#told + 1] = value
    end
  else
    others = others + line[2]
    if line[3] ~= '' and (oldest == '' or line[3] < oldest) then
      oldest = line[3]
    end
  end
end
local telling, telling_slow = alive(K.rq_workers_of_queue .. ARGV[2]), alive(K.rq_workers_of_queue .. ARGV[3])
local verified = redis.call('HMGET', K.verified, 'violations', 'seconds')
return {redis.call('ZCARD', K.ready), redis.call('ZCARD', K.leased),
  alive(K.rq_workers) - telling - telling_slow, telling, redis.call('TIME')[1], results, verified[1] or '', verified[2] or '', others, oldest, unpack(told)}
