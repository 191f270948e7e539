-- Reads lines "path boot epoch now" and answers each with the verdict of nginx's Lua reader, in plain LuaJIT.
--
-- luajit keyfile_verdicts.lua FOLDER LIBCRYPTO < LINES

local ffi = require "ffi"
package.path = arg[1] .. "/?.lua;" .. package.path
ffi.load(arg[2], true) -- nginx has it loaded already
local keyfile = require "keyrotd.keyfile"

for line in io.lines() do
    local path, boot, epoch, now_ms = line:match("^(.*) (%x+) (%d+) (%d+)$")
    local reader = keyfile.reader(path)
    local _, length, fault = reader:look()
    if length then
        local window
        window, fault = keyfile.parse(reader.buffer, length)
        fault = fault or keyfile.judge(window, boot, tonumber(epoch), tonumber(now_ms))
    end
    assert(not reader:look(), "a file that has not changed is news")
    reader:wipe()
    io.write(fault or "ok", "\n")
end
