/* SPDX-License-Identifier: MIT */
/* victim.hh - inline functions that two units share: COMDAT groups. */
namespace victim {
template <class T> struct box {
	T value;
	__attribute__((noinline)) T get() const { return value; }
	__attribute__((noinline)) void set(T v) { value = v; }
};
__attribute__((noinline)) inline int shared_first(int x)
{
	return x + 1;
}
__attribute__((noinline)) inline int shared_second(int x)
{
	return shared_first(x) * 2;
}
int user_a(int x);
int user_b(int x);
}
