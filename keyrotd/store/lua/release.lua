-- End the lease if it is the holder's.
-- KEYS lease   ARGV holder
if leader(KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
return 1
