-- Leave nothing in a hash but these fields, of a fair size.
-- KEYS hash   ARGV kind (whose size `limit` has) name...
local fair, left = {}, limit.reports_bytes
if length(KEYS[1]) == 0 then return 0 end
for at = 2, math.min(#ARGV, limit.reports + 1) do
  local size = redis.call('HSTRLEN', KEYS[1], ARGV[at])
  if size > 0 and size <= math.min(left, limit[ARGV[1]]) then
    fair[#fair + 1], left = ARGV[at], left - size
  end
end
keep_only(KEYS[1], fair)
return 1
