-- Look at some of the listed queues: an event with work and no consumer becomes ready, a queue with
-- neither work nor results leaves RQ's list until its next command.
-- ARGV: cursor. Gives: the next cursor ('0' at the end), events made ready.
local step = redis.call('SSCAN', K.rq_queues, ARGV[1], 'COUNT', K.sweep_step)
local prefix = K.rq_queue .. K.queue_name_prefix
local made_ready = 0

for _, key in ipairs(step[2]) do
  if string.sub(key, 1, #prefix) == prefix then
    local event_id = string.sub(key, #prefix + 1)
    local queue = K.queue_name_prefix .. event_id
    if redis.call('EXISTS', K.order .. event_id, key) > 0 then
      if not redis.call('ZSCORE', K.ready, event_id) and not redis.call('ZSCORE', K.leased, event_id) then
        make_ready(event_id, 0)
        made_ready = made_ready + 1
      end
    elseif redis.call('EXISTS', K.rq_finished .. queue, K.rq_failed .. queue) == 0 then
      redis.call('SREM', K.rq_queues, key)
    end
  end
end
return {step[1], made_ready}
