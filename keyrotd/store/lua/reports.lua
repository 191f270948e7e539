-- Every report of a fair size, flat: node, report, node, report; or how many there are, when those are too many.
-- KEYS reports
local count = length(KEYS[1])
if count == 0 then return {} end
if count > limit.reports then return count end

local all, fair = redis.call('HGETALL', KEYS[1]), {}
for at = 1, #all, 2 do
  if is_name(all[at]) and #all[at + 1] > 0 and #all[at + 1] <= limit.report then
    fair[#fair + 1] = all[at]
    fair[#fair + 1] = all[at + 1]
  end
end
return fair
