-- Write the next window: {'published'}, {'fenced', newest} or {'moved', found}; the latter two write nothing.
-- KEYS window fence offers   ARGV window digest epoch fence parent channel hint
local window, fence, offers = unpack(KEYS)
local bytes, digest, epoch, mine, parent, channel, hint = unpack(ARGV)

local found, beside = stored(window)
if found == digest and beside == mine then return {'published'} end

local newest = text(fence, limit.name)
if newest ~= mine then return {'fenced', fence_number(newest, 2 ^ 53)} end
if found ~= parent then return {'moved', found} end

without_memory(window)
make_room(window, 'hash')
redis.call('HSET', window, 'window', bytes, 'digest', digest, 'epoch', epoch, 'fence', mine)
if redis.call('TYPE', offers).ok == 'hash' then redis.call('HDEL', offers, digest) end
redis.call('PUBLISH', channel, hint)
return {'published'}
