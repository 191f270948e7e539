-- Memory for keys: pages of their own, kept out of core dumps and, where the system allows, out of swap.

local ffi = require "ffi"
local C = ffi.C

-- Names of our own, bound to the real ones: another library in this nginx may have declared those differently.
ffi.cdef [[
void *keyrotd_mmap(void *, size_t, int, int, int, int64_t) __asm__("mmap");
int keyrotd_madvise(void *, size_t, int) __asm__("madvise");
int keyrotd_mlock(const void *, size_t) __asm__("mlock");
void *keyrotd_memcpy(void *, const void *, size_t) __asm__("memcpy");
void keyrotd_cleanse(void *, size_t) __asm__("OPENSSL_cleanse");
]]

-- The same numbers on x86-64 and arm64.
local PROT_READ_WRITE = 0x3
local MAP_PRIVATE_ANONYMOUS = 0x22
local MADV_DONTDUMP = 16

local memory = {}

-- Zeroed bytes that nobody ever frees: nginx wipes its key arrays after the Lua VM is gone.
function memory.hold(bytes)
    local at = C.keyrotd_mmap(nil, bytes, PROT_READ_WRITE, MAP_PRIVATE_ANONYMOUS, -1, 0)
    if ffi.cast("intptr_t", at) == -1 then
        error("no memory for keys: errno " .. ffi.errno(), 0)
    end
    -- Neither is worth refusing keys for: an old kernel knows no DONTDUMP, a container may lock nothing.
    C.keyrotd_madvise(at, bytes, MADV_DONTDUMP)
    C.keyrotd_mlock(at, bytes)
    return ffi.cast("uint8_t *", at)
end

-- libc's own copy and libcrypto's own wiping, called: LuaJIT may turn ffi.copy and ffi.fill into code of its own.
function memory.copy(to, from, bytes)
    C.keyrotd_memcpy(to, from, bytes)
end

function memory.wipe(at, bytes)
    C.keyrotd_cleanse(at, bytes)
end

return memory
