-- Reports of a fair size, flat: node, report, node, report. Those of the nodes in ARGV come first, in that order, then
-- any others that chance picks, small ones before large ones as far as there is room: nobody hides a node behind a
-- million reports of his own.
-- KEYS reports   ARGV bytes, which may be fewer than limit.reports_bytes, node...
local key, found, taken, left = KEYS[1], {}, {}, math.min(tonumber(ARGV[1]), limit.reports_bytes)
local share = left / limit.reports_bytes
if length(key) == 0 then return {} end

local function take(name, size, spare)
  if taken[name] or size == 0 or size > limit.report or size > left - spare then return end
  taken[name], left = true, left - size
  found[#found + 1] = name
  found[#found + 1] = redis.call('HGET', key, name)
end

for at = 2, math.min(#ARGV, limit.reports + 1) do
  take(ARGV[at], redis.call('HSTRLEN', key, ARGV[at]), limit.strangers_bytes * share)
end

local room = length(key) > limit.reports and limit.strangers or limit.reports
room = math.ceil(room * share)
local strangers = {}
for _, name in ipairs(any_fields(key, room, limit.reports_held)) do
  if is_name(name) then strangers[#strangers + 1] = {name = name, size = redis.call('HSTRLEN', key, name)} end
end
table.sort(strangers, function(one, other) return one.size < other.size end)
for _, stranger in ipairs(strangers) do take(stranger.name, stranger.size, 0) end
return found
