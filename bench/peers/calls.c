/* SPDX-License-Identifier: MIT */
/*
 * calls.c NAME [fdr] - what the entry and exit of one function cost under the
 * tracer that it was compiled for, beyond a call that is not traced. "fdr": XRay's
 * flight data recorder, every call written.
 */
#include "common.h"

#ifdef WITH_XRAY
#define UNTRACED __attribute__((noinline, xray_never_instrument))
#else
#define UNTRACED __attribute__((noinline, no_instrument_function))
#endif

void traced(void);

UNTRACED static void plain(void)
{
	__asm__ volatile("" ::: "memory");
}

#ifdef WITH_XRAY
/* The run time's C entry points; its headers are for C++. */
int __xray_patch(void);
int __xray_log_select_mode(const char *mode);
int __xray_log_init_mode(const char *mode, const char *config);
int __xray_log_finalize(void);

UNTRACED static int recorder_on(void)
{
	return __xray_log_select_mode("xray-fdr") != 0 ||
	       __xray_log_init_mode("xray-fdr",
		       "buffer_size=1048576:buffer_max=64:func_duration_threshold_us=0") != 2 ||
	       __xray_patch() != 1;
}

UNTRACED static void recorder_off(void)
{
	__xray_log_finalize();
}
#else
UNTRACED static int recorder_on(void)
{
	return 0;
}

UNTRACED static void recorder_off(void)
{
}
#endif

UNTRACED int main(int argc, char **argv)
{
	double without, with;

	if (argc < 2)
		return 2;
	pin(1);
	if (recorder_on()) {
		fprintf(stderr, "calls: the recorder does not start\n");
		return 1;
	}
	without = MEASURE(plain());
	with = MEASURE(traced());
	recorder_off();
	printf("%s %.2f ns\n", argv[1], with - without);
	return 0;
}
