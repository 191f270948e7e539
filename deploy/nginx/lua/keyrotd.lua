-- Gives every worker of this nginx the ticket keys of keyrotd's key file, while it runs. Whatever is wrong, nginx goes
-- on with the keys that it has.
--
--     init_worker_by_lua_block {
--         require("keyrotd").start {
--             key_file = "/run/keyrotd/nginx.keys",
--             ack_dir = "/run/keyrotd-nginx",
--         }
--     }
--
-- README.md in the folder above has the options. Reads one local file and writes another; knows nothing of rotation.

local ffi = require "ffi"
local acknowledgement = require "keyrotd.acknowledgement"
local contexts = require "keyrotd.contexts"
local keyfile = require "keyrotd.keyfile"
local memory = require "keyrotd.memory"
local C = ffi.C

ffi.cdef [[
int keyrotd_random(uint8_t *, int) __asm__("RAND_bytes");
int keyrotd_getpid(void) __asm__("getpid");
int keyrotd_getppid(void) __asm__("getppid");
char *keyrotd_strerror(int) __asm__("strerror");
]]

local keyrotd = {}

-- One worker of nginx. Its `slots` are keys as nginx keeps them: a random one of this worker's own, then those of the
-- file. nginx is pointed at the part that counts now, so that a bound that passes moves numbers and no keys.
local Worker = {}
Worker.__index = Worker

local OPTIONS = { key_file = "string", ack_dir = "string", poll = "number", exclude = "table", stream = "boolean",
    take_all = "boolean" }
local SHORTEST_POLL_S, LONGEST_POLL_S = 0.05, 60

-- Call it once, in init_worker_by_lua_block. It never raises: what is wrong is in nginx's error log.
function keyrotd.start(options)
    if not ngx.worker.id() then
        return -- a cache manager or another that serves nobody
    end
    local worked, why = pcall(function()
        local asked = keyrotd.options(options)
        assert(contexts.claim(C.keyrotd_getpid()), "start is called twice")
        Worker.start(Worker.new(asked))
    end)
    if not worked then
        ngx.log(ngx.ERR, "keyrotd: ", why, "; nginx goes on with the ticket keys that it has")
    end
end

-- What was asked for, with what goes without saying. Raises for what makes no sense.
function keyrotd.options(asked)
    assert(type(asked) == "table", "start wants { key_file = ..., ack_dir = ... }")
    local options = { poll = 1, exclude = {}, stream = true, take_all = false }
    for name, value in pairs(asked) do
        local kind = OPTIONS[name]
        if not kind then
            error("there is no option " .. tostring(name), 0)
        elseif type(value) ~= kind then
            error("option " .. name .. " wants a " .. kind, 0)
        end
        options[name] = value
    end
    assert(options.key_file and options.ack_dir, "start wants key_file and ack_dir")
    if options.poll < SHORTEST_POLL_S or options.poll > LONGEST_POLL_S then
        error("option poll wants " .. SHORTEST_POLL_S .. " to " .. LONGEST_POLL_S .. " seconds", 0)
    end
    return options
end

function Worker.new(options)
    local self = setmetatable({
        options = options,
        pid = C.keyrotd_getpid(),
        reader = keyfile.reader(options.key_file),
        random = memory.hold(keyfile.RECORD_BYTES),
        filled = 0, -- how many of the file's keys are in the slots
        floor = 0ULL, -- the highest epoch that was installed
        installed_at = 0,
        seals = "-",
        boot = keyfile.boot(),
    }, Worker)
    self.ack = acknowledgement.of(options.ack_dir, self.pid)
    local found, why = contexts.find(ngx.config.nginx_version, options)
    if found then
        self.contexts = found
        self.slots = found:slots(1 + keyfile.MAX_RECORDS)
    else
        self:refuse("layout", why)
    end
    return self
end

-- Installs what there is before this worker accepts anything, and looks again at every poll.
function Worker:start()
    function self.wake(leaving)
        if leaving then
            self.ack:remove()
            return
        end
        local worked, why = pcall(self.tick, self)
        if not worked then
            self.reader:wipe()
            self:complain("failure", "the reader itself failed: " .. tostring(why))
        end
    end
    assert(ngx.timer.every(self.options.poll, self.wake))
    -- nginx ends its Lua however a worker leaves, short of SIGKILL: then the acknowledgement goes too.
    self.farewell = ffi.gc(ffi.new("char[1]"), function()
        self.ack:remove()
    end)
    self.ack:sweep()
    self.wake(false)
end

function Worker:tick()
    local now_ms = keyfile.boot_ms()
    if self.contexts then
        self:look(now_ms)
        self:enforce(now_ms)
    end
    self:acknowledge()
end

-- Takes what is new in the key file.
function Worker:look(now_ms)
    local news, length, fault, cause = self.reader:look()
    if not news then
        return
    end
    local window
    if length then
        window, fault = keyfile.parse(self.reader.buffer, length)
        fault = fault or keyfile.judge(window, self.boot, self.floor, now_ms)
    end
    if not fault then
        self:install(window)
    else
        self:refuse(fault, cause ~= 0 and ffi.string(C.keyrotd_strerror(cause)) or nil)
    end
    self.reader:wipe()
end

-- Remembers a fault and says it. Whoever looks at a file says so once: until it changes there is no news of it.
function Worker:refuse(fault, why)
    self.fault = fault
    local keeps = self.filled > 0 and "epoch " .. self:epoch() .. " stays" or "nginx goes on with the keys that it has"
    ngx.log(ngx.ERR, "keyrotd: ", self.options.key_file, ": ", fault, why and " (" .. why .. ")" or "", "; ", keeps)
end

-- Says once what every tick finds anew.
function Worker:complain(about, words)
    if words ~= self[about .. "_said"] then
        self[about .. "_said"] = words
        ngx.log(ngx.ERR, "keyrotd: ", words)
    end
end

-- Puts the file's keys into the slots behind our own. No handshake runs meanwhile: nginx waits for us.
function Worker:install(window)
    self.fault = nil
    if self.filled > 0 and window.digest == self.window.digest then
        return
    end
    if self.contexts:ready(function() return self:chance() end) == 0 then
        return self:refuse("layout", "no server has a ssl_session_ticket_key, and take_all is not set")
    end
    if self.contexts:lacking() > 0 then
        self:complain("lacking", "servers without a ssl_session_ticket_key: " .. self.contexts:lacking()
            .. ". Keys that nobody shares or rotates seal there; give them one, or set take_all")
    end
    local records = self.reader.buffer + keyfile.HEAD_BYTES
    for i = 1, window.count do
        self.contexts:fill(self.slots[i], records + (i - 1) * keyfile.RECORD_BYTES)
    end
    self:empty(window.count + 1)
    self.window, self.filled, self.installed_at = window, window.count, math.floor(ngx.now() * 1000)
    self.floor = window.epoch > self.floor and window.epoch or self.floor
    ngx.log(ngx.NOTICE, "keyrotd: epoch ", self:epoch(), " installed, ", window.count, " keys in ",
        self.contexts:count(), " contexts, the first is ", window.seals)
end

-- Wipes the slots from `first` on, as far as they were filled.
function Worker:empty(first)
    if first <= self.filled then
        memory.wipe(self.slots + first, (self.filled - first + 1) * self.contexts.key_bytes)
    end
    self.filled = math.min(self.filled, first - 1)
end

-- Has nginx seal and open with what the window allows at `now_ms`. A function of both, so that it heals itself; and
-- nginx is never pointed at a key that is not there: what goes is wiped when it has looked away.
function Worker:enforce(now_ms)
    local window = self.window
    if not window then
        return
    end
    local opens = now_ms < window.opens_until and self.filled or 0
    if opens > 0 and now_ms < window.seals_until then
        self.contexts:point(self.slots + 1, opens)
        self:drop_own()
    else
        self:renew_own(window, now_ms)
        self.contexts:point(self.slots, 1 + opens)
    end
    self.seals = self.own_until and "-" or window.seals
    if opens < self.filled then
        self:empty(1)
        self:refuse("expired", "no key may open any more, all are wiped")
    end
    self:wake_for(window.seals_until - now_ms)
    self:wake_for(window.opens_until - now_ms)
end

-- A bound that falls before the next poll gets a timer of its own.
function Worker:wake_for(left_ms)
    if left_ms > 0 and left_ms < self.options.poll * 1000 then
        ngx.timer.at(left_ms / 1000, self.wake)
    end
end

-- A random key that only this worker has, for as long as a ticket of the window would have opened.
function Worker:renew_own(window, now_ms)
    if self.own_until and now_ms < self.own_until then
        return
    end
    self.contexts:fill(self.slots[0], self:chance())
    memory.wipe(self.random, keyfile.RECORD_BYTES)
    local opens_ms = window.opens_until - window.seals_until
    self.own_until = opens_ms > 0 and now_ms + opens_ms or math.huge
end

function Worker:drop_own()
    if self.own_until then
        memory.wipe(self.slots, self.contexts.key_bytes)
        self.own_until = nil
    end
end

-- As many random bytes as a record has.
function Worker:chance()
    assert(C.keyrotd_random(self.random, keyfile.RECORD_BYTES) == 1, "libcrypto has no random bytes")
    return self.random
end

function Worker:epoch()
    return (tostring(self.window.epoch):gsub("ULL", ""))
end

function Worker:acknowledge()
    local window = self.filled > 0 and self.window
    local said, cause = self.ack:say {
        pid = self.pid,
        parent = C.keyrotd_getppid(),
        processes = ngx.worker.count(),
        poll_ms = math.floor(self.options.poll * 1000 + 0.5),
        digest = window and window.digest or "-",
        seals = self.seals,
        epoch = window and window.epoch or 0ULL,
        step = window and window.step or 0ULL,
        installed_at = window and self.installed_at or 0,
        contexts = window and self.contexts:count() or 0,
        fault = self.fault or "-",
    }
    if not said then
        self:complain("ack", self.ack.path .. ": cannot be written (" .. ffi.string(C.keyrotd_strerror(cause)) .. ")")
    end
end

return keyrotd
