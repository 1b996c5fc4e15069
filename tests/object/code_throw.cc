/* SPDX-License-Identifier: MIT */
/* code_throw.cc - exceptions that land in every way a function can catch them. */
#include <stdexcept>
#include <string>

namespace thrower {
volatile int sink;

struct guard {
	int v;
	explicit guard(int x) : v(x) {}
	~guard() { sink = sink + v; }
};

__attribute__((noinline)) void leaf(int how)
{
	if (how == 1)
		throw 42;
	if (how == 2)
		throw std::runtime_error("two");
	if (how == 3)
		throw std::string("three");
	sink = how;
}

/* Lands to clean up, and goes on unwinding. */
__attribute__((noinline)) void cleans(int how)
{
	guard a(how);
	leaf(how);
	guard b(how + 1);
	leaf(how == 1 ? 0 : how);
}

__attribute__((noinline)) int catches(int how)
{
	try {
		cleans(how);
	} catch (int i) {
		return i;
	} catch (const std::exception &e) {
		return static_cast<int>(std::string(e.what()).size());
	}
	return 0;
}

/* Catches, and throws on out of the handler. */
__attribute__((noinline)) int rethrows(int how)
{
	guard a(1);
	try {
		catches(how);
		leaf(how == 2 ? 1 : how);
	} catch (const std::string &s) {
		throw;
	} catch (...) {
		return 7;
	}
	return 8;
}

template <class T> __attribute__((noinline)) T many(T x)
{
	T sum = 0;
	for (int i = 0; i < 4; i++) {
		try {
			guard g(i);
			leaf(static_cast<int>(x + i) % 4);
		} catch (int v) {
			sum += v;
		} catch (const std::runtime_error &) {
			sum += 1;
		} catch (...) {
			sum += 2;
		}
	}
	return sum;
}
}

extern "C" int code_throw(void)
{
	int sum = 0;

	for (int how = 0; how < 4; how++) {
		try {
			sum += thrower::catches(how);
		} catch (...) {
			sum += 100;
		}
		try {
			sum += thrower::rethrows(how);
		} catch (...) {
			sum += 1000;
		}
		sum += thrower::many<int>(how);
		sum += static_cast<int>(thrower::many<long>(how));
	}
	return sum;
}

#ifdef PROGRAM
int main()
{
	return code_throw() <= 0;
}
#endif
