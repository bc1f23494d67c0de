-- Books one ticket per request on one event, for another user each time.
-- wrk ... -s bench/booking.lua <base url> -- <path of the bookings>
-- The last line of output is `RESULT` and a JSON object, read by bench/load.py.

local threads = 0

function setup(thread)
  threads = threads + 1
  thread:set("thread_number", threads)
end

function init(arguments)
  path = arguments[1]
  headers = { ["Content-Type"] = "application/json" }
  sent = 0
end

function request()
  sent = sent + 1
  local body = '{"user_id": "user-' .. thread_number .. "-" .. sent .. '", "ticket_count": 1}'
  return wrk.format("POST", path, headers, body)
end

function done(summary, latency, requests)
  local errors = summary.errors
  local broken = errors.connect + errors.read + errors.write + errors.timeout
  -- wrk counts an answer of status 400 and above as an error of status.
  io.write(string.format(
    'RESULT {"seconds": %.6f, "answers": %d, "refused": %d, "broken": %d}\n',
    summary.duration / 1e6, summary.requests, errors.status, broken
  ))
end
