-- SPDX-License-Identifier: MIT
-- work.lua [rounds] - coroutines that yield across pcall, errors that unwind many
-- frames (longjmp), stack overflow, tracebacks, string matching and collections.
-- What it prints depends on nothing but the rounds.
local rounds = tonumber(arg and arg[1]) or 20
local sum, caught = 0, 0

local function tree(depth)
	if depth == 0 then coroutine.yield(1) else tree(depth - 1); tree(depth - 1) end
end

local function deep(n)
	if n == 0 then error({ code = 7 }) end
	return deep(n - 1) + 1
end

local function overflow(n) return overflow(n + 1) + 1 end

-- Yields from inside pcall, inside a coroutine, inside a coroutine.
local function nested(n)
	return coroutine.wrap(function()
		for i = 1, n do
			local ok, err = pcall(function()
				coroutine.yield(i)
				if i % 3 == 0 then error("third " .. i, 0) end
				return i
			end)
			if not ok then caught = caught + 1; coroutine.yield(err) end
		end
	end)
end

for round = 1, rounds do
	local co = coroutine.create(tree)
	while true do
		local ok, v = coroutine.resume(co, 8)
		if not ok then error(v) end
		if not v then break end
		sum = sum + v
	end
	local ok, err = pcall(deep, 50)
	assert(not ok and err.code == 7)
	caught = caught + 1
	local count = 0
	for v in nested(9) do count = count + 1; sum = sum + (tonumber(v) or #v) end
	assert(count == 12)
	local trace
	ok, err = xpcall(function() deep(20) end, function(e)
		trace = debug.traceback("x", 1)
		return e.code
	end)
	assert(not ok and err == 7 and select(2, trace:gsub("\n", "")) > 20)
	if round % 10 == 1 then
		ok, err = pcall(overflow, 1)
		assert(not ok and tostring(err):find("stack overflow"))
		caught = caught + 1
	end
	-- A coroutine that dies of an error, and one that is closed half way.
	local bad = coroutine.create(function() coroutine.yield(); deep(30) end)
	coroutine.resume(bad)
	ok, err = coroutine.resume(bad)
	assert(not ok and err.code == 7 and coroutine.status(bad) == "dead")
	local half <close> = setmetatable({}, { __close = function() sum = sum + 1 end })
	local open = coroutine.create(function() local x <close> = half; coroutine.yield() end)
	coroutine.resume(open)
	coroutine.close(open)
	local words = {}
	for w in ("the quick brown fox jumps over the lazy dog"):rep(5):gmatch("%a+") do
		words[#words + 1] = w:upper():reverse()
	end
	table.sort(words)
	sum = sum + #table.concat(words)
	collectgarbage(round % 5 == 0 and "collect" or "step")
end
print(rounds, sum, caught)
error("the last word", 0) -- exit status 1, through lua's own handler
