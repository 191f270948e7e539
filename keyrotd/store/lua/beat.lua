-- Write the beat of the newest fence while its lease lives: 1, or 0 for a leader that was overtaken or overslept.
-- KEYS lease fence beat   ARGV beat fence
local lease, fence, beat = unpack(KEYS)
if leader(lease) == '' or field(lease, 'fence', limit.name) ~= ARGV[2] then return 0 end
if text(fence, limit.name) ~= ARGV[2] then return 0 end
without_memory(beat)
redis.call('SET', beat, ARGV[1])
return 1
