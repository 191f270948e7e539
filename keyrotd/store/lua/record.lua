-- Put an event before the others; once, however often it is asked.
-- KEYS history   ARGV event
without_memory(KEYS[1])
make_room(KEYS[1], 'list')
if redis.call('LINDEX', KEYS[1], 0) ~= ARGV[1] then
  redis.call('LPUSH', KEYS[1], ARGV[1])
  redis.call('LTRIM', KEYS[1], 0, limit.history - 1)
end
return 1
