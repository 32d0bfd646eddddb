-- Bodies and headers come from the files make.py wrote: BENCH_BODIES (each behind its length), BENCH_HEADERS ("a: b" lines).
local requests, at = {}, 0

init = function()
  local headers = {}
  for line in io.lines(os.getenv("BENCH_HEADERS")) do
    local name, value = line:match("^(.-): (.*)$")
    headers[name] = value
  end
  local file = io.open(os.getenv("BENCH_BODIES"), "rb")
  while true do
    local size = file:read(4)
    if not size then break end
    local a, b, c, d = size:byte(1, 4)
    local body = file:read(a + 256 * b + 65536 * c + 16777216 * d)
    requests[#requests + 1] = wrk.format("POST", os.getenv("BENCH_PATH"), headers, body)
  end
end

request = function()
  at = at % #requests + 1
  return requests[at]
end

done = function(summary, latency)
  local errors = summary.errors
  local failed = errors.status + errors.connect + errors.read + errors.write + errors.timeout
  io.write(string.format('\nRESULT{"per_s":%.1f,"p50_us":%.1f,"p99_us":%.1f,"failed":%d,"count":%d}\n',
    summary.requests / summary.duration * 1e6, latency:percentile(50), latency:percentile(99), failed, summary.requests))
end
