#!/bin/sh
# SPDX-License-Identifier: MIT
# matrix.sh SOURCE LIBDIR GCC CLANG - uses.c compiled in every way and run. TAP.
# Ways: compiler, C or C++, optimization, and how code and objects are made; far.c is
# linked in or a library of its own.
src=$1 lib=$2 n=0 failed=0
dir=$(mktemp -d) && trap 'rm -rf "$dir"' EXIT

one() { # name, compiler, language and flags, link flags, far: in or so
	n=$((n + 1))
	if ! command -v "$2" >/dev/null; then
		echo "ok $n # SKIP $1: no $2"
		return
	fi
	case $2 in *clang*) quiet=-Qunused-arguments ;; *) quiet= ;; esac
	flags="$quiet -Wall -Wextra -Wpedantic -Wshadow -Werror -I$src/include -I$src/tests"
	far="$src/tests/site/far.c"
	# shellcheck disable=SC2086
	{
		if [ "$5" = so ]; then
			"$2" $3 $flags -fPIC -shared -x ${6:-c} "$far" -o "$dir/libfar.so" $4 &&
				far="-x none $dir/libfar.so"
		fi &&
			"$2" $3 $flags -x ${6:-c} "$src/tests/site/uses.c" $far -x none \
				-o "$dir/uses" $4 -L"$lib" -lshunt -Wl,-rpath,"$lib:$dir" &&
			timeout 60 "$dir/uses"
	} >"$dir/log" 2>&1
	if [ $? -eq 0 ] && grep -q '^1\.\.' "$dir/log"; then
		echo "ok $n - $1"
	else
		echo "not ok $n - $1"
		grep -v '^ok' "$dir/log" | head -20 | sed 's/^/# /'
		failed=$((failed + 1))
	fi
}

every() { # compiler, C++ compiler
	for way in '-O0' '-O1' '-O2' '-O3' '-Os' '-O2 -flto' '-O2 -fno-plt' '-O2 -fPIE -pie' \
		'-O2 -fno-pie -no-pie' '-O0 -fno-pie -no-pie' '-O2 -fPIC' \
		'-O2 -fcf-protection=full' '-O2 -ffunction-sections -fdata-sections -Wl,--gc-sections' \
		'-O3 -flto -ffunction-sections -Wl,--gc-sections' '-O2 -g -fno-omit-frame-pointer' \
		'-O2 -fmerge-all-constants' \
		'-O2 -ffunction-sections -fdata-sections -fuse-ld=gold -Wl,--gc-sections,--icf=all' \
		'-O2 -ffunction-sections -fdata-sections -fuse-ld=lld -Wl,--gc-sections,--icf=all'; do
		one "$1, C11, $way" "$1" "-std=gnu11 $way" '' in c
		one "$1, C11, $way, two objects" "$1" "-std=gnu11 $way" '' so c
		one "$2, C++17, $way" "$2" "-std=c++17 $way" '' in c++
		one "$2, C++17, $way, two objects" "$2" "-std=c++17 $way" '' so c++
	done
	one "$1, strict C11" "$1" '-std=c11 -O2' '' in c
	one "$1, no sites" "$1" '-std=gnu11 -O2 -DSHUNT_GENERIC' '' in c
	one "$2, no sites" "$2" '-std=c++17 -O2 -DSHUNT_GENERIC' '' in c++
}

every "$3" "$4"
every "$5" "$6"
echo "1..$n"
[ $failed -eq 0 ]
