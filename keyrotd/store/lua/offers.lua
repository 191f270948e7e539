-- The offered windows of these digests, flat: digest, window, digest, window.
-- KEYS offers   ARGV digest...
local found = {}
for _, digest in ipairs(ARGV) do
  local window = field(KEYS[1], digest, limit.window)
  if window then
    found[#found + 1] = digest
    found[#found + 1] = window
  end
end
return found
