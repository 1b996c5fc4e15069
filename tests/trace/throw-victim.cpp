/* SPDX-License-Identifier: MIT */
/* throw-victim.cpp - traced C++ functions that exceptions go through. */
#include <stdexcept>
#include <string>

extern "C" int t_destroyed, t_catches(int n), t_nested(int n), t_rethrow(int n);
extern "C" int t_noexcept_cleanup(int n);
int t_destroyed;

namespace victim
{
struct guard {
	~guard()
	{
		t_destroyed++;
	}
};

template <class T> [[gnu::noinline]] T thrower(T x, int depth)
{
	guard g;
	if (!depth)
		throw std::runtime_error("from below " + std::to_string(x));
	T r = thrower<T>(x, depth - 1);
	__asm__ volatile("" ::: "memory");
	return r + 1;
}

[[gnu::noinline]] int middle(int n)
{
	guard g;
	int r = thrower<int>(n, n % 9);
	__asm__ volatile("" ::: "memory");
	return r;
}

[[gnu::noinline]] void rethrow(int n)
{
	try {
		middle(n);
	} catch (std::exception &) {
		guard g;
		throw;
	}
}
}

extern "C" int t_catches(int n)
{
	int caught = 0;
	for (int i = 0; i < n; i++) {
		try {
			victim::middle(i);
		} catch (const std::runtime_error &e) {
			caught += std::string(e.what()) == "from below " + std::to_string(i);
		}
	}
	return caught;
}

extern "C" int t_rethrow(int n)
{
	int caught = 0;
	for (int i = 0; i < n; i++) {
		try {
			victim::rethrow(i);
		} catch (...) {
			caught++;
		}
	}
	return caught;
}

extern "C" int t_nested(int n)
{
	int caught = 0;
	for (int i = 0; i < n; i++) {
		try {
			try {
				victim::middle(i);
			} catch (std::runtime_error &) {
				caught += t_catches(1);
				victim::middle(i + 1);
			}
		} catch (std::runtime_error &) {
			caught++;
		}
	}
	return caught;
}
