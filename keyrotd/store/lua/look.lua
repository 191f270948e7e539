-- What a person wants to see of a ring.
-- KEYS window beat lease fence reports
local digest = stored(KEYS[1])
local who, remaining = leader(KEYS[3])
return {
  digest, news(KEYS[1], digest, ''), text(KEYS[2], limit.beat), who, remaining,
  fence_number(text(KEYS[4], limit.name), 2 ^ 53), length(KEYS[5]),
}
