/* SPDX-License-Identifier: MIT */
/* Exceptions thrown, rethrown and caught through traced frames with destructors. */
#include <cstdio>
#include <stdexcept>
#include <string>

static long unwound;
struct guard {
	~guard() { unwound++; }
};

__attribute__((noinline)) static int dig(int depth, int n)
{
	guard g;

	if (depth == 0)
		throw std::runtime_error(std::to_string(n));
	return dig(depth - 1, n) + 1;
}

__attribute__((noinline)) static int middle(int depth, int n)
{
	guard g;

	try {
		return dig(depth, n);
	} catch (const std::exception &) {
		if (n % 2)
			throw;
		return -n;
	}
}

int main()
{
	long sum = 0;

	for (int n = 0; n < 3000; n++) {
		try {
			sum += middle(n % 50, n);
		} catch (const std::runtime_error &e) {
			sum += std::stoi(e.what()) * 2;
		}
	}
	std::printf("%ld %ld\n", sum, unwound);
	return 5;
}
