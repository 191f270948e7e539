-- What this worker has installed, for the agent to read (docs/key-file.md): one small file per process, no secrets.

local ffi = require "ffi"
local C = ffi.C

ffi.cdef [[
int keyrotd_open(const char *, int, int) __asm__("open");
int keyrotd_close(int) __asm__("close");
int keyrotd_fchmod(int, unsigned) __asm__("fchmod");
ssize_t keyrotd_write(int, const void *, size_t) __asm__("write");
int keyrotd_rename(const char *, const char *) __asm__("rename");
int keyrotd_unlink(const char *) __asm__("unlink");
int keyrotd_utimens(int, const char *, const void *, int) __asm__("utimensat");
/* glibc's and musl's on 64 bits. */
typedef struct { uint64_t inode; int64_t at; uint16_t bytes; uint8_t kind; char name[256]; } keyrotd_entry;
void *keyrotd_opendir(const char *) __asm__("opendir");
keyrotd_entry *keyrotd_readdir(void *) __asm__("readdir");
int keyrotd_closedir(void *) __asm__("closedir");
int keyrotd_kill(int, int) __asm__("kill");
]]

local READABLE = 420 -- 0644, whatever the umask: the agent must be able to read it
local CREATE_FLAGS = 0x1 + 0x40 + 0x80 + 0x80000 -- WRONLY CREAT EXCL CLOEXEC; EXCL follows no link
local AT_FDCWD, AT_SYMLINK_NOFOLLOW = -100, 0x100
local ESRCH = 3

local FORM = [[
keyrotd-ack 1
pid %d
parent %d
processes %d
poll_ms %d
digest %s
seals %s
epoch %s
step %s
installed_at %.0f
contexts %d
fault %s
]]

local Acknowledgement = {}
Acknowledgement.__index = Acknowledgement

local acknowledgement = {}

function acknowledgement.of(directory, pid)
    return setmetatable({
        directory = directory,
        path = directory .. "/" .. pid,
        temp = directory .. "/." .. pid .. ".tmp",
    }, Acknowledgement)
end

local function put(path, said)
    C.keyrotd_unlink(path) -- left by a worker that had our pid and was killed
    local file = C.keyrotd_open(path, CREATE_FLAGS, READABLE)
    if file < 0 then
        return false
    end
    local whole = C.keyrotd_fchmod(file, READABLE) == 0 and C.keyrotd_write(file, said, #said) == #said
    return C.keyrotd_close(file) == 0 and whole
end

-- 64 bits in decimal, without the suffix that LuaJIT gives them.
local function plain(number)
    return (tostring(number):gsub("ULL", ""))
end

-- Says `facts`, or that they still hold. Answers nil and the system's errno when it could not.
function Acknowledgement:say(facts)
    local said = FORM:format(facts.pid, facts.parent, facts.processes, facts.poll_ms, facts.digest, facts.seals,
        plain(facts.epoch), plain(facts.step), facts.installed_at, facts.contexts, facts.fault)
    if said == self.said and C.keyrotd_utimens(AT_FDCWD, self.path, nil, AT_SYMLINK_NOFOLLOW) == 0 then
        return true
    end
    self.said = nil
    if not put(self.temp, said) or C.keyrotd_rename(self.temp, self.path) ~= 0 then
        local cause = ffi.errno()
        C.keyrotd_unlink(self.temp)
        return nil, cause
    end
    self.said = said
    return true
end

-- Takes away what processes left that were killed, so that nobody waits for them.
function Acknowledgement:sweep()
    local entries = C.keyrotd_opendir(self.directory)
    if entries == nil then
        return
    end
    local entry = C.keyrotd_readdir(entries)
    while entry ~= nil do
        local name = ffi.string(entry.name)
        local pid = name:find("^[1-9]%d*$") and #name < 10 and tonumber(name)
        if pid and C.keyrotd_kill(pid, 0) ~= 0 and ffi.errno() == ESRCH then
            C.keyrotd_unlink(self.directory .. "/" .. name)
        end
        entry = C.keyrotd_readdir(entries)
    end
    C.keyrotd_closedir(entries)
end

function Acknowledgement:remove()
    C.keyrotd_unlink(self.path)
end

return acknowledgement
