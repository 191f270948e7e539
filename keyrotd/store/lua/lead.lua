-- Take or renew the lease, and read all that a tick decides on.
-- KEYS lease fence window beat offers requests reports history   ARGV holder ttl_ms fence_above known_digest
local lease, fence, window, beat, offers, requests, reports, history = unpack(KEYS)
local holder, ttl, above, known = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4]

local led = 0
local who, remaining = leader(lease)
local digest, beside = stored(window)

if who == '' or who == holder then
  without_memory(fence)
  local believable = above + limit.fence_jump
  local counter = fence_number(text(fence, limit.name), believable)
  local highest = math.max(counter, fence_number(beside, believable), above)
  if who == holder and counter == highest and field(lease, 'fence', limit.name) == fence_text(highest) then
    led = highest
  else
    led = highest + 1
    redis.call('SET', fence, fence_text(led))
    make_room(lease, 'hash')
    redis.call('HSET', lease, 'holder', holder, 'fence', fence_text(led))
  end
  redis.call('PEXPIRE', lease, ttl)
  who, remaining = holder, ttl

  -- Those who only add to these keys could not mend a wrong kind.
  for key, kind in pairs({[offers] = 'hash', [requests] = 'hash', [reports] = 'hash', [history] = 'list'}) do
    make_room(key, kind)
  end
end

local ids, asked = names(requests, limit.requests, limit.requests_held, limit.request), {}
for _, id in ipairs(ids) do
  asked[#asked + 1] = id
  asked[#asked + 1] = redis.call('HGET', requests, id)
end
-- Whoever may add requests may add more than anybody can read.
if led > 0 and length(requests) > #ids then keep_only(requests, ids) end

local time = redis.call('TIME')
return {
  led, who, remaining, digest, news(window, digest, known), text(beat, limit.beat),
  asked, names(offers, limit.offers, limit.offers_held, limit.window), length(offers), length(reports),
  time[1] * 1000 + math.floor(time[2] / 1000),
}
