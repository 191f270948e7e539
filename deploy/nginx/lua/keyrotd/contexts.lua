-- Where this nginx keeps its ticket keys. By the layouts of the versions named here, and of no other: a wrong guess is
-- a wild pointer, so whatever is not known is left alone.

local ffi = require "ffi"
local memory = require "keyrotd.memory"
local C = ffi.C

ffi.cdef [[
typedef struct { void *elements; size_t count, size, room; void *pool; } keyrotd_array;
typedef struct { size_t length; const char *data; } keyrotd_string;
typedef struct { size_t ctx_index, index; } keyrotd_module;
typedef struct { void **main_conf, **srv_conf; } keyrotd_conf_ctx;
typedef struct { void **conf_ctx; void *pool, *log; } keyrotd_cycle;
typedef struct { size_t size; uint8_t record[80]; } keyrotd_key_1022;
typedef struct { uint8_t record[80]; int64_t expire; unsigned size : 8, shared : 1; } keyrotd_key_1023;

extern keyrotd_cycle *keyrotd_ngx_cycle __asm__("ngx_cycle");
extern keyrotd_module keyrotd_http __asm__("ngx_http_module");
extern keyrotd_module keyrotd_http_core __asm__("ngx_http_core_module");
extern keyrotd_module keyrotd_http_ssl __asm__("ngx_http_ssl_module");
extern keyrotd_module keyrotd_stream __asm__("ngx_stream_module");
extern keyrotd_module keyrotd_stream_core __asm__("ngx_stream_core_module");
extern keyrotd_module keyrotd_stream_ssl __asm__("ngx_stream_ssl_module");
extern int keyrotd_index_1022 __asm__("ngx_ssl_session_ticket_keys_index");
extern int keyrotd_index_1023 __asm__("ngx_ssl_ticket_keys_index");

void *keyrotd_ex_data(const void *, int) __asm__("SSL_CTX_get_ex_data");

/* What nginx's own function for ssl_session_ticket_key takes: ngx_conf_t and ngx_ssl_t, as far as it reads them. */
typedef struct {
    void *name, *args; keyrotd_cycle *cycle; void *pool, *temp_pool, *conf_file, *log, *unused[8];
} keyrotd_conf;
typedef struct { void *ctx, *log; void *unused[16]; } keyrotd_ssl;
intptr_t keyrotd_read_ticket_keys(keyrotd_conf *, keyrotd_ssl *, keyrotd_array *)
    __asm__("ngx_ssl_session_ticket_keys");
int keyrotd_setenv(const char *, const char *, int) __asm__("setenv");
int keyrotd_memfd(const char *, unsigned) __asm__("memfd_create");
ssize_t keyrotd_write(int, const void *, size_t) __asm__("write");
int keyrotd_close(int) __asm__("close");
]]

local MFD_CLOEXEC = 1

-- Each entry says what changed with that version, in bytes on 64 bits, from nginx's own headers. The last is the newest
-- that the tests have run on: its successor may have moved anything.
local OLDEST, NEWEST = 1019000, 1031004
local LAYOUTS = {
    {
        from = OLDEST,
        key = "keyrotd_key_1022",
        index = "keyrotd_index_1022",
        http = { ctx = 40, ssl = 8, name = 64 },
        stream = { ctx = 8, ssl = 16 },
    },
    { from = 1023002, key = "keyrotd_key_1023", index = "keyrotd_index_1023" },
    { from = 1025001, http = { ctx = 40, ssl = 0, name = 64 } },
    { from = 1025005, stream = { ctx = 48, ssl = 24, name = 72 } },
    { from = 1029001, stream = { ctx = 48, ssl = 32, name = 72 } },
}

local contexts = {}

-- The layout of `version` (1022001 is 1.22.1), or nil where none is known.
function contexts.layout(version)
    if version < OLDEST or version > NEWEST or not ffi.abi("64bit") then
        return nil
    end
    local layout = {}
    for _, change in ipairs(LAYOUTS) do
        if change.from <= version then
            for part, value in pairs(change) do
                layout[part] = value
            end
        end
    end
    return layout
end

local CLAIM = "KEYROTD_READER"

-- Whether nobody in this process has taken the contexts of this configuration yet; from now on somebody has. Lua cannot
-- know: http and stream each have a Lua of their own, and the second would wipe what the first installed.
function contexts.claim(pid)
    local claim = pid .. " " .. tostring(C.keyrotd_ngx_cycle)
    if os.getenv(CLAIM) == claim then
        return false
    end
    return C.keyrotd_setenv(CLAIM, claim, 1) == 0
end

-- An exported symbol, or nil: a module that this nginx was built or loaded without has none.
local function symbol(name)
    local found, value = pcall(function() return C[name] end)
    return found and value or nil
end

local function pointer(at, offset)
    return ffi.cast("void **", ffi.cast("uint8_t *", at) + offset)[0]
end

local function text(at, offset)
    local found = ffi.cast("keyrotd_string *", ffi.cast("uint8_t *", at) + offset)
    return ffi.string(found.data, found.length)
end

-- Calls `visit` with the SSL_CTX of every server of one block (http, stream), and its name where it has one.
local function walk(block, offsets, visit)
    local whole, core, ssl = symbol(block), symbol(block .. "_core"), symbol(block .. "_ssl")
    local block_ctx = whole and core and ssl and C.keyrotd_ngx_cycle.conf_ctx[whole.index] or nil
    if block_ctx == nil then
        return
    end
    local main = ffi.cast("keyrotd_conf_ctx *", block_ctx).main_conf[core.ctx_index]
    local servers = ffi.cast("keyrotd_array *", main) -- both blocks' main configuration begins with it
    for i = 0, tonumber(servers.count) - 1 do
        local server = ffi.cast("void **", servers.elements)[i]
        local of_server = ffi.cast("keyrotd_conf_ctx *", pointer(server, offsets.ctx)).srv_conf[ssl.ctx_index]
        local ssl_ctx = of_server ~= nil and pointer(of_server, offsets.ssl) or nil
        if ssl_ctx ~= nil then
            visit(ssl_ctx, offsets.name and text(server, offsets.name))
        end
    end
end

local Contexts = {}
Contexts.__index = Contexts

local function set(list)
    local of = {}
    for _, value in ipairs(list) do
        of[value] = true
    end
    return of
end

-- All SSL contexts of this worker but those of the servers named in `exclude`; or nil and what is wrong, in words.
--
-- `version` is nginx's. Looks only: nothing is changed before `point`.
function contexts.find(version, options)
    local layout = contexts.layout(version)
    if not layout then
        return nil, "nginx " .. version .. " is none of " .. OLDEST .. " to " .. NEWEST .. ", whose layouts are known"
    end
    local index = symbol(layout.index)
    if not index then
        return nil, "nginx does not have its ticket keys where version " .. version .. " has them"
    end
    local self = setmetatable({
        layout = layout,
        key_bytes = ffi.sizeof(layout.key),
        index = index,
        take_all = options.take_all,
        arrays = {},
        without = {},
    }, Contexts)
    local excluded, seen = set(options.exclude), {}
    local unmet = set(options.exclude)
    local function visit(ssl_ctx, name)
        local id = tostring(ssl_ctx)
        if name and excluded[name] then
            unmet[name] = nil
        elseif not seen[id] then
            seen[id] = true
            table.insert(self.without, ssl_ctx)
        end
    end
    walk("keyrotd_http", layout.http, visit)
    if options.stream then
        walk("keyrotd_stream", layout.stream, visit)
    end
    -- A misspelt name must not hand a server the keys that it was to be kept from.
    if next(unmet) then
        return nil, "exclude names " .. next(unmet) .. ", which is the first name of no server with a certificate"
    end
    return self:collect()
end

-- Moves the contexts that have a key array to `arrays`; refuses an array of anything but the keys that we know.
function Contexts:collect()
    local without = {}
    for _, ssl_ctx in ipairs(self.without) do
        local array = ffi.cast("keyrotd_array *", C.keyrotd_ex_data(ssl_ctx, self.index))
        if array == nil then
            table.insert(without, ssl_ctx)
        elseif tonumber(array.size) ~= self.key_bytes then
            return nil, "nginx's ticket keys take " .. tonumber(array.size) .. " bytes each, not " .. self.key_bytes
        else
            table.insert(self.arrays, array)
        end
    end
    self.without = without
    return self
end

-- Where the configuration names no key: nginx's own function makes what it would have made at start. The file that it
-- reads is in memory and random, and its key is replaced before any handshake can meet it.
local function adopt(ssl_ctx, random)
    local file = C.keyrotd_memfd("keyrotd", MFD_CLOEXEC)
    if file < 0 then
        return
    end
    local name = "/proc/self/fd/" .. file
    local path = ffi.new("keyrotd_string[1]", { { #name, name } })
    local paths = ffi.new("keyrotd_array", { path, 1, ffi.sizeof("keyrotd_string"), 1, nil })
    local cycle = C.keyrotd_ngx_cycle
    local conf = ffi.new("keyrotd_conf", { cycle = cycle, pool = cycle.pool, log = cycle.log })
    local ssl = ffi.new("keyrotd_ssl", { ctx = ssl_ctx, log = cycle.log })
    if C.keyrotd_write(file, random, 80) == 80 then
        C.keyrotd_read_ticket_keys(conf, ssl, paths)
    end
    C.keyrotd_close(file)
end

-- How many contexts can be given keys; with `take_all` also those that had no array. `chance` answers 80 random bytes.
function Contexts:ready(chance)
    if self.take_all and #self.without > 0 then
        for _, ssl_ctx in ipairs(self.without) do
            adopt(ssl_ctx, chance())
        end
        assert(self:collect())
    end
    return self:count()
end

function Contexts:count()
    return #self.arrays
end

-- How many contexts are left with keys of OpenSSL's own.
function Contexts:lacking()
    return #self.without
end

-- So many keys as nginx keeps them, none of them filled.
function Contexts:slots(count)
    return ffi.cast(ffi.typeof(self.layout.key .. " *"), memory.hold(count * self.key_bytes))
end

-- Writes a record of the key file into `key`, one of nginx's.
function Contexts:fill(key, record)
    key.size = 80
    memory.copy(key.record, record, 80)
    if self.layout.key == "keyrotd_key_1023" then
        key.shared = 0 -- else nginx would write keys of its own over ours
        key.expire = 1 -- else a ticket under another key than the first is not renewed
    end
end

-- Has every context use `count` keys from `first` on, from now on, and wipes the keys that nginx started with.
function Contexts:point(first, count)
    for _, array in ipairs(self.arrays) do
        if not self.pointed then
            memory.wipe(array.elements, array.count * self.key_bytes)
        end
        array.elements, array.count, array.room = first, count, count
    end
    self.pointed = true
end

return contexts
