-- Reports of a fair size, flat: node, report, node, report. Those of the nodes in ARGV come first, in that order, then
-- any others that chance picks, small ones before large ones as far as there is room: nobody hides a node behind a
-- million reports of his own.
-- KEYS reports   ARGV bytes, which may be fewer than limit.reports_bytes, node...
local key, found, taken, count, left = KEYS[1], {}, {}, 0, math.min(tonumber(ARGV[1]), limit.reports_bytes)
local share = left / limit.reports_bytes
local standing = length(key)
if standing == 0 then return {} end

-- What is too large is not even read. Where all of it together is not, measuring each would double the time.
local all_fit = standing <= limit.measured and redis.call('MEMORY', 'USAGE', key, 'SAMPLES', limit.measured) <= left

local function take(name, spare)
  local most = math.min(limit.report, left - spare)
  if taken[name] or not all_fit and redis.call('HSTRLEN', key, name) > most then return end
  local value = redis.call('HGET', key, name)
  if not value or #value == 0 or #value > most then return end
  taken[name], count, left = true, count + 1, left - #value
  found[#found + 1] = name
  found[#found + 1] = value
end

for at = 2, math.min(#ARGV, limit.reports + 1) do take(ARGV[at], limit.strangers_bytes * share) end
if count == standing then return found end

local room = standing > limit.reports and limit.strangers or limit.reports
room = math.ceil(room * share)
local strangers = {}
for _, name in ipairs(any_fields(key, room, limit.reports_held)) do
  if is_name(name) and not taken[name] then
    strangers[#strangers + 1] = {name = name, size = all_fit or redis.call('HSTRLEN', key, name)}
  end
end
if not all_fit then table.sort(strangers, function(one, other) return one.size < other.size end) end
for _, stranger in ipairs(strangers) do take(stranger.name, 0) end
return found
