-- Reads keyrotd's key file (docs/key-file.md). It is believed only whole, and no byte of a key becomes a Lua string.
--
-- Knows nothing of nginx: it runs in plain LuaJIT too, given libcrypto.

local ffi = require "ffi"
local bit = require "bit"
local memory = require "keyrotd.memory"
local C = ffi.C

ffi.cdef [[
typedef struct { int64_t seconds; uint32_t nanoseconds; int32_t unused; } keyrotd_time;
/* The kernel's struct statx, which is the same on every architecture; struct stat is not. */
typedef struct {
    uint32_t mask, blksize; uint64_t attributes; uint32_t nlink, uid, gid; uint16_t mode, unused; uint64_t inode, bytes;
    uint64_t blocks, attributes_mask; keyrotd_time accessed, born, changed, modified;
    uint32_t rdev_major, rdev_minor, device_major, device_minor; uint64_t spare[14];
} keyrotd_statx;
int keyrotd_statx_fd(int, const char *, int, unsigned, keyrotd_statx *) __asm__("statx");
int keyrotd_open(const char *, int, int) __asm__("open");
ssize_t keyrotd_read(int, void *, size_t) __asm__("read");
int keyrotd_close(int) __asm__("close");
int keyrotd_memcmp(const void *, const void *, size_t) __asm__("memcmp");
const void *keyrotd_sha256(void) __asm__("EVP_sha256");
typedef struct { long seconds, nanoseconds; } keyrotd_timespec;
int keyrotd_clock(int, keyrotd_timespec *) __asm__("clock_gettime");
int keyrotd_digest(const void *, size_t, uint8_t *, unsigned *, const void *, void *) __asm__("EVP_Digest");
]]

local MAGIC = "keyrotd\n"
local HEAD_BYTES = 96
local RECORD_BYTES = 80 -- name[16] hmac[32] aes[32]; 48 is another reader's
local DIGEST_BYTES = 32
local NAME_BYTES = 16
local BOOT_AT, BOOT_BYTES = 48, 16
local MAX_RECORDS = 96
local MAX_BYTES = HEAD_BYTES + MAX_RECORDS * RECORD_BYTES + DIGEST_BYTES

local NOFOLLOW = ({ x64 = 0x20000, arm64 = 0x8000 })[jit.arch]
if not NOFOLLOW then
    error("keyrotd: known on x64 and arm64 only, this is " .. jit.arch, 0)
end
-- NONBLOCK: whoever puts a FIFO there shall not make nginx wait. CLOEXEC: a binary upgrade hands nothing of it on.
local OPEN_FLAGS = 0x800 + 0x80000 + NOFOLLOW
local AT_EMPTY_PATH = 0x1000
local STATX_BASIC_STATS = 0x7ff
local S_IFMT, S_IFREG, GROUP_AND_OTHERS_WRITE = 0xf000, 0x8000, 0x12
local ENOENT, EINTR = 2, 4
local CLOCK_BOOTTIME = 7

local keyfile = { RECORD_BYTES = RECORD_BYTES, MAX_RECORDS = MAX_RECORDS, HEAD_BYTES = HEAD_BYTES }

local function number(at, bytes)
    local value = 0ULL
    for i = 0, bytes - 1 do
        value = value * 256 + at[i]
    end
    return value
end

local function hex(at, bytes)
    local words = {}
    for i = 0, bytes - 1 do
        words[i + 1] = string.format("%02x", at[i])
    end
    return table.concat(words)
end

-- An instant of the boot clock, in ms; 0 stands for one that never comes.
local function bound(at)
    local instant = tonumber(number(at, 8))
    return instant == 0 and math.huge or instant
end

local function has_twins(records, count)
    for i = 1, count - 1 do
        for j = 0, i - 1 do
            if C.keyrotd_memcmp(records + i * RECORD_BYTES, records + j * RECORD_BYTES, NAME_BYTES) == 0 then
                return true
            end
        end
    end
    return false
end

local digest = ffi.new("uint8_t[?]", DIGEST_BYTES)

-- What `length` bytes say: a window, or nil and the first fault. Only public things are in a window: no key.
function keyfile.parse(data, length)
    if length < #MAGIC or C.keyrotd_memcmp(data, MAGIC, #MAGIC) ~= 0 then
        return nil, "bad-magic"
    end
    if length < HEAD_BYTES + DIGEST_BYTES then
        return nil, "bad-length"
    end
    if number(data + 8, 2) ~= 1 then
        return nil, "bad-version"
    end
    if number(data + 10, 2) ~= RECORD_BYTES then
        return nil, "bad-size"
    end
    local count = tonumber(number(data + 12, 4))
    if count < 1 or count > MAX_RECORDS then
        return nil, "bad-count"
    end
    local body = HEAD_BYTES + count * RECORD_BYTES
    if length ~= body + DIGEST_BYTES then
        return nil, "bad-length"
    end
    for i = BOOT_AT + BOOT_BYTES, HEAD_BYTES - 1 do
        if data[i] ~= 0 then
            return nil, "bad-reserved"
        end
    end
    if C.keyrotd_digest(data, body, digest, nil, C.keyrotd_sha256(), nil) ~= 1
        or C.keyrotd_memcmp(digest, data + body, DIGEST_BYTES) ~= 0 then
        return nil, "bad-digest"
    end
    if has_twins(data + HEAD_BYTES, count) then
        return nil, "twin-names"
    end
    return {
        count = count,
        epoch = number(data + 16, 8),
        step = number(data + 24, 8),
        seals_until = bound(data + 32),
        opens_until = bound(data + 40),
        boot = hex(data + BOOT_AT, BOOT_BYTES),
        seals = hex(data + HEAD_BYTES, NAME_BYTES),
        digest = hex(digest, DIGEST_BYTES),
    }
end

local NO_BOOT = ("00"):rep(BOOT_BYTES)

-- Which boot this is, in hex. Zeros where that cannot be learnt: then no keys with bounds are good.
function keyfile.boot()
    local file = io.open("/proc/sys/kernel/random/boot_id")
    local words = file and file:read("*l") or ""
    if file then
        file:close()
    end
    local boot = words:gsub("-", "")
    return #boot == #NO_BOOT and boot or NO_BOOT
end

-- Milliseconds since this boot, suspended ones too: no wall clock moves it.
function keyfile.boot_ms()
    local now = ffi.new("keyrotd_timespec")
    if C.keyrotd_clock(CLOCK_BOOTTIME, now) ~= 0 then
        return math.huge -- no clock: every bound has passed
    end
    return tonumber(now.seconds) * 1000 + math.floor(tonumber(now.nanoseconds) / 1e6)
end

-- Why one in `boot` who has installed up to `epoch` (0: nothing yet) may not install `window` at `now_ms`.
function keyfile.judge(window, boot, epoch, now_ms)
    local bounded = window.seals_until < math.huge or window.opens_until < math.huge
    if bounded and (window.boot ~= boot or window.boot == NO_BOOT) then
        return "other-boot"
    end
    if window.epoch ~= 0 and window.epoch < epoch then
        return "older"
    end
    if now_ms >= window.opens_until then
        return "expired"
    end
    return nil
end

local Reader = {}
Reader.__index = Reader

-- Somebody who watches one path. `buffer` holds the file after a `look` that found news; `wipe` it.
function keyfile.reader(path)
    return setmetatable({
        path = path,
        buffer = memory.hold(MAX_BYTES + 1),
        known = ffi.new("keyrotd_statx"),
        seen = ffi.new("keyrotd_statx"),
        cause = 0,
    }, Reader)
end

-- Owner, mode, inode and size; then the changes of status and content, and the device. Not when it was last read.
local FIRST, FIRST_BYTES = ffi.offsetof("keyrotd_statx", "uid"), 28
local SECOND, SECOND_BYTES = ffi.offsetof("keyrotd_statx", "changed"), 48

local function same(one, other)
    local a, b = ffi.cast("uint8_t *", one), ffi.cast("uint8_t *", other)
    return C.keyrotd_memcmp(a + FIRST, b + FIRST, FIRST_BYTES) == 0
        and C.keyrotd_memcmp(a + SECOND, b + SECOND, SECOND_BYTES) == 0
end

-- All bytes of an open file: their number, or nil, a fault and what the system said.
function Reader:read(file)
    local length = 0
    while length <= MAX_BYTES do -- one further than may be: what grew meanwhile must not look whole
        local more = tonumber(C.keyrotd_read(file, self.buffer + length, MAX_BYTES + 1 - length))
        if more == 0 then
            return length
        elseif more > 0 then
            length = length + more
        elseif ffi.errno() ~= EINTR then
            return nil, "bad-file", ffi.errno()
        end
    end
    return nil, "bad-length", 0
end

-- The same of a file that may be no file, or an old one. Answers 0 bytes for what is already known.
function Reader:read_new(file)
    local seen = self.seen
    if C.keyrotd_statx_fd(file, "", AT_EMPTY_PATH, STATX_BASIC_STATS, seen) ~= 0 then
        return nil, "bad-file", ffi.errno()
    end
    if same(seen, self.known) then
        return 0
    end
    if bit.band(seen.mode, S_IFMT) ~= S_IFREG or bit.band(seen.mode, GROUP_AND_OTHERS_WRITE) ~= 0 then
        return nil, "bad-file", 0
    end
    if seen.bytes > MAX_BYTES then
        return nil, "bad-length", 0
    end
    return self:read(file)
end

-- Whether there is news; if so the length of what now stands in `buffer`, or nil, a fault and what the system said.
function Reader:look()
    local file = C.keyrotd_open(self.path, OPEN_FLAGS, 0)
    local length, fault, cause
    if file < 0 then
        cause = ffi.errno()
        fault = cause == ENOENT and "missing" or "bad-file"
    else
        length, fault, cause = self:read_new(file)
        C.keyrotd_close(file)
    end
    cause = cause or 0
    if cause ~= 0 then
        -- What could not be read is tried again, and is news once.
        local news = cause ~= self.cause
        self.cause = cause
        ffi.fill(self.known, ffi.sizeof("keyrotd_statx"))
        return news, nil, fault, cause
    end
    local news = self.cause ~= 0 or not same(self.seen, self.known)
    self.cause = 0
    self.known, self.seen = self.seen, self.known
    return news, length, fault, 0
end

function Reader:wipe()
    memory.wipe(self.buffer, MAX_BYTES + 1)
end

return keyfile
