-- Stands before every script, after `limit`, a table of limits.py. Whoever owns the store may have put anything
-- anywhere: what is of a wrong kind or size, or no visible ASCII where a name is due, is absent.

-- Windows and beats, offers and reports: a string, or one field of a hash.
local function text(key, most)
  if redis.call('TYPE', key).ok ~= 'string' or redis.call('STRLEN', key) > most then return false end
  return redis.call('GET', key)
end

local function field(key, name, most)
  if redis.call('TYPE', key).ok ~= 'hash' then return false end
  local size = redis.call('HSTRLEN', key, name)
  if size == 0 or size > most then return false end
  return redis.call('HGET', key, name)
end

local function is_name(value)
  return value and #value <= limit.name and value:match('^[ -~]+$') ~= nil
end

local function length(key)
  if redis.call('TYPE', key).ok ~= 'hash' then return 0 end
  return redis.call('HLEN', key)
end

-- Up to `most` fields, any of them: nobody can hide the others behind a thousand of his own. None where as many of them
-- may take more than `held` bytes: names of tens of megabytes would be copied here for seconds.
local function any_fields(key, most, held)
  local count = length(key)
  if count == 0 then return {} end
  local bytes = redis.call('MEMORY', 'USAGE', key, 'SAMPLES', limit.measured)
  if bytes * math.min(1, most / count) > held then return {} end
  return redis.call('HRANDFIELD', key, most)
end

-- Those of them that are names, with a value of a fair size.
local function names(key, most, held, value_most)
  local found = {}
  for _, name in ipairs(any_fields(key, most, held)) do
    local size = redis.call('HSTRLEN', key, name)
    if is_name(name) and size > 0 and size <= value_most then found[#found + 1] = name end
  end
  return found
end

-- Leave nothing in a hash but these fields. What a cluster that moves the slot does not take again is lost.
local function keep_only(key, kept)
  local pairs_kept = {}
  for _, name in ipairs(kept) do
    pairs_kept[#pairs_kept + 1] = name
    pairs_kept[#pairs_kept + 1] = redis.call('HGET', key, name)
  end
  redis.call('UNLINK', key)
  for at = 1, #pairs_kept, 1000 do
    redis.pcall('HSET', key, unpack(pairs_kept, at, math.min(at + 999, #pairs_kept)))
  end
end

-- The digest of the stored window ('' : none) and the fence beside it. A hash that lacks either half is no window.
local function stored(key)
  local digest = field(key, 'digest', limit.name)
  if not is_name(digest) or redis.call('HSTRLEN', key, 'window') == 0
    or redis.call('HSTRLEN', key, 'window') > limit.window then
    return '', false
  end
  return digest, field(key, 'fence', limit.name)
end

local function news(key, digest, known)
  if digest == '' or digest == known then return false end
  return redis.call('HGET', key, 'window')
end

-- Fences are compared as text where they must be equal; Lua's numbers hold them exactly up to 2^53.
local function fence_number(value, most)
  local number = value and #value <= 16 and value:match('^%d+$') and tonumber(value) or 0
  return number <= most and number or 0
end

local function fence_text(number) return string.format('%.0f', number) end

-- Who leads and for how long; a lease without end, or too long a one, leads nobody.
local function leader(key)
  local remaining = redis.call('PTTL', key)
  local holder = remaining > 0 and remaining <= limit.lease and field(key, 'holder', limit.name)
  if not is_name(holder) then return '', 0 end
  return holder, remaining
end

-- Whatever begins with a write that takes no memory, Redis lets write on when its memory is full: whoever may add to the
-- reports can fill it, and only a leader can empty it. Besides, nothing but the lease expires.
local function without_memory(key) redis.call('PERSIST', key) end

-- Remove a value of any other kind, since writing could not mend it. One of the right kind stays, to be written over:
-- while a cluster moves the slot to another node, what a script has removed it cannot write again.
local function make_room(key, kind)
  local found = redis.call('TYPE', key).ok
  if found ~= kind and found ~= 'none' then redis.call('DEL', key) end
end
