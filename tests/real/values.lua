-- SPDX-License-Identifier: MIT
-- values.lua STOP - works in rounds until the file STOP is there. Of each round a line says
-- how many returns the hook saw, how deep calls in C went, how many allocations were
-- counted, and whether the result is right.
local stop = arg[1]
local returns, depth = 0, 0

local function fib(n)
	if n < 2 then return n end
	return fib(n - 1) + fib(n - 2)
end

local function deep()
	depth = depth + 1
	string.gsub("x", "x", deep)
end

local function work()
	local t, x, s = {}, 1, 0
	for i = 1, 300 do
		x = x * 1103515245 % 2147483648 + 12345
		t[i] = x
	end
	table.sort(t, function(a, b) return a > b end)
	for i = 2, #t do assert(t[i - 1] >= t[i]) end
	for i = 1, 200 do
		local co = coroutine.wrap(function(a) return a + coroutine.yield(#tostring(a)) end)
		s = s + co(i) + co(1)
	end
	local ok, err = pcall(error, { code = 7 })
	return s + fib(14) + err.code + #table.concat(t, ",")
end

local function stopped()
	local f = io.open(stop)
	return f and f:close()
end

local expected = work()
debug.sethook(function() returns = returns + 1 end, "r")
repeat
	returns, depth = 0, 0
	local counted = debug.allocations()
	local right = work() == expected
	local seen = returns
	pcall(deep)
	print(seen, depth, debug.allocations() - counted, right and "right" or "wrong")
	io.stdout:flush()
until stopped()
