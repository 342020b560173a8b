-- Posts the body of a file again and again, with a number that was never sent before in the place of NUMBER, and one
-- of 16 in the place of SHARE.
-- wrk … -s post.lua URL -- FILE EXPECTED
-- An earlier run began at least a second before, and sent fewer than a million.
local body, expected, number, failed = '', '', os.time() * 1000000, 0
local threads = {}

function setup(thread)
  table.insert(threads, thread)
end

function init(args)
  local file = assert(io.open(args[1]))
  body, expected = file:read('*a'), args[2]
  file:close()
  wrk.method = 'POST'
  wrk.headers['Content-Type'] = 'application/json'
end

function request()
  number = number + 1
  return wrk.format(nil, nil, nil, (body:gsub('NUMBER', string.format('%d', number)):gsub('SHARE', string.format('%d', number % 16))))
end

function response(status, _, text)
  if status ~= 200 or not text:find(expected, 1, true) then
    failed = failed + 1
    wrk.thread:set('failed', failed)
    wrk.thread:set('first', text:sub(1, 300))
  end
end

function done(summary, latency)
  local failures, first = 0, ''
  for _, thread in ipairs(threads) do
    failures = failures + (thread:get('failed') or 0)
    first = thread:get('first') or first
  end
  io.write(string.format('\nRESULT %f %f %f %d %s\n', summary.requests / (summary.duration / 1e6), latency:percentile(50) / 1000, latency:percentile(99) / 1000, failures, first))
end
