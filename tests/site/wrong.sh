#!/bin/sh
# SPDX-License-Identifier: MIT
# wrong.sh SOURCE COMPILER.. - what must not compile, and that the message names the
# reason. Compilers whose name has ++ are C++'s. TAP.
src=$1 n=0 failed=0
shift
dir=$(mktemp -d) && trap 'rm -rf "$dir"' EXIT

# refuses MESSAGE CODE: that every compiler refuses it and says MESSAGE (grep -E).
refuses() {
	for cc in $compilers; do
		n=$((n + 1))
		case $cc in *++*) file=$dir/wrong.cc std=c++17 ;; *) file=$dir/wrong.c std=c11 ;; esac
		command -v "$cc" >/dev/null || { echo "ok $n # SKIP no $cc"; continue; }
		printf '#include <shunt/imv.h>\n#include <shunt/key.h>\n#include <shunt/ops.h>\n#include <shunt/trace.h>\n%s\n' "$2" >"$file"
		if "$cc" -std=$std -O2 -I"$src/include" -c "$file" -o "$dir/o" 2>"$dir/log"; then
			echo "not ok $n - $cc accepts: $2" && failed=1
		elif grep -qE "$1" "$dir/log"; then
			echo "ok $n - $cc refuses: $2"
		else
			echo "not ok $n - $cc's message" && failed=1
			head -n 20 "$dir/log" | sed 's/^/# /'
		fi
	done
}

compilers="$*"
refuses 'an immediate value is a scalar of 1, 2, 4 or 8 bytes' \
	'struct three { char c[3]; }; SHUNT_DEFINE_IMV(struct three, v, {0});'
refuses 'incompatible type|conver' \
	'SHUNT_DEFINE_IMV(int, v, 0); struct s { int x; } s; int f(void) { return shunt_imv_set(v, s); }'
refuses '_Generic|conver' \
	'int one(int); int other(const char *); SHUNT_DEFINE_CALL(c, one); int f(void) { return shunt_call_set(c, other); }'
refuses 'too (few|many) arguments|requires' \
	'int one(int); SHUNT_DEFINE_CALL(c, one); int f(void) { return shunt_call(c)(); }'
refuses 'undeclared|not declared' \
	'bool f(void) { return shunt_key_unlikely(nobody); }'
refuses 'key' \
	'SHUNT_DEFINE_IMV(int, v, 0); int f(void) { return shunt_key_enable(v); }'
refuses 'at most 8 states' \
	'SHUNT_DEFINE_CHOICE(c, "0", "1", "2", "3", "4", "5", "6", "7", "8");'
points='SHUNT_TRACEPOINT(a, b, shunt_integer(int, x), shunt_string(s));'
refuses 'too few arguments|requires' "$points void f(void) { shunt_trace(a, b, 1); }"
refuses 'too many arguments|requires' "$points void f(void) { shunt_trace(a, b, 1, \"\", 2); }"
refuses 'incompatible|conver|makes pointer' "$points void f(void) { shunt_trace(a, b, 1, 1.5); }"
refuses '_Generic|static_cast' \
	"$points void p(int x, void *d); int f(void) { return shunt_trace_register(a, b, p, NULL); }"
refuses 'at most 4,000 bytes' 'SHUNT_TRACEPOINT(a, b, shunt_array(long, big, 600));'
refuses 'scalar of 1, 2, 4 or 8' 'SHUNT_TRACEPOINT(a, b, shunt_real(long double, x));'
refuses 'format|expects' '_Pragma("GCC diagnostic error \"-Wformat\"") SHUNT_MARK(m); void f(void) { shunt_mark(m, "%s", 1); }'
echo "1..$n"
exit $failed
