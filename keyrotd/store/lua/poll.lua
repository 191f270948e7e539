-- What a node reads each tick; run as EVALSHA_RO by users who may write nothing of it.
-- KEYS window beat offers   ARGV known_digest
local digest = stored(KEYS[1])
return {
  text(KEYS[2], limit.beat), digest, news(KEYS[1], digest, ARGV[1]), names(KEYS[3], limit.offers, limit.window),
}
