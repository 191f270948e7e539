-- Write the beat of the newest fence: 1, or 0 for a leader that was overtaken.
-- KEYS fence beat   ARGV beat fence
if text(KEYS[1], limit.name) ~= ARGV[2] then return 0 end
redis.call('SET', KEYS[2], ARGV[1])
return 1
