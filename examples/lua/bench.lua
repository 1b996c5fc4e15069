-- SPDX-License-Identifier: MIT
-- bench.lua [NAME [PART]] - calls, callbacks and allocations, of which each prints its
-- seconds; the sum of what was computed at the end. NAME: only that one; PART: only
-- a PARTth of its turns.
local only, part = arg and arg[1], tonumber(arg and arg[2]) or 1
local sum = 0

local function times(n) return n // part end

local function fib(n)
	if n < 2 then return n end
	return fib(n - 1) + fib(n - 2)
end

local function nothing() end

local work = {
	{ "calls", function() return fib(part == 1 and 33 or 26) end },
	{ "empty_calls", function()
		for _ = 1, times(15000000) do nothing() end
		return 1
	end },
	{ "c_calls", function()
		local abs, byte, n = math.abs, string.byte, 0
		for i = 1, times(8000000) do n = n + abs(-i) + byte("x") end
		return n
	end },
	{ "callbacks", function()
		local t, x = {}, 1
		for i = 1, times(300000) do
			x = x * 1103515245 % 2147483648 + 12345
			t[i] = x
		end
		table.sort(t, function(a, b) return a > b end)
		local words = ("word "):rep(times(200000)):gsub("%a+", function(w) return #w end)
		return t[1] + #words
	end },
	{ "pcalls", function()
		local n = 0
		for i = 1, times(6000000) do
			local _, v = pcall(fib, 1)
			n = n + v
		end
		return n
	end },
	{ "tables", function()
		local n = 0
		for i = 1, times(4000000) do
			local t = { i, x = i }
			n = n + t[1] + t.x
		end
		return n
	end },
	{ "closures", function()
		local n = 0
		for i = 1, times(5000000) do
			local f = function() return i end
			n = n + f()
		end
		return n
	end },
	{ "strings", function()
		local n = 0
		for i = 1, times(3000000) do n = n + #("k" .. i) end
		return n
	end },
}

for _, w in ipairs(work) do
	if not only or only == w[1] then
		collectgarbage()
		local t = os.clock()
		sum = sum + w[2]()
		print(w[1], os.clock() - t)
	end
end
print("sum", sum)
