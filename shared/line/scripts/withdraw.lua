-- Note on a job that its client takes it back. Whoever looks at it from now on sees the note; one who has looked
-- already may still apply it, and the ledger says which it was.
-- ARGV: job_id. Gives whether it waits.
local key = K.rq_job .. ARGV[1]
local fields = redis.call('HMGET', key, 'position', 'completed', 'marks')
if not fields[1] or fields[2] then
  return 0
end
local marks = fields[3] or ''
if not string.find(marks, K.mark_withdrawn, 1, true) then
  redis.call('HSET', key, 'marks', marks == '' and K.mark_withdrawn or (marks .. ',' .. K.mark_withdrawn))
end
return 1
