/* SPDX-License-Identifier: MIT */
/* demangle.cpp - C++ names for people, by the C++ runtime's own hand. */
#include <cxxabi.h>

extern "C" char *shunt_demangle(const char *name);

extern "C" char *shunt_demangle(const char *name)
{
	int status = 0;

	if (name[0] != '_' || name[1] != 'Z')
		return nullptr;
	return abi::__cxa_demangle(name, nullptr, nullptr, &status);
}
