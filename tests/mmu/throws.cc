// SPDX-License-Identifier: MIT
// throws.cc - an exception that leaves a callback: the process is aborted, with a message; one
// that is caught there is nobody's business.
#include <csignal>
#include <cstdio>
#include <cstring>
#include <stdexcept>
#include <sys/wait.h>
#include <unistd.h>

#include <shunt/mmu.h>

static int count, failed;

static void ok(bool good, const char *name)
{
	std::printf("%sok %d - %s\n", good ? "" : "not ", ++count, name);
	std::fflush(stdout);
	failed += !good;
}

static void throws(shunt_mmu_notifier *, const shunt_mmu_event *)
{
	throw std::runtime_error("out of a callback");
}

static int caught;

static void catches(shunt_mmu_notifier *n, const shunt_mmu_event *e)
{
	try {
		throws(n, e);
	} catch (const std::exception &) {
		caught++;
	}
}

static void interval_throws(shunt_mmu_interval *, const shunt_mmu_event *, uint64_t)
{
	throw 1;
}

static const uintptr_t there = 0x10000000;

static void change()
{
	shunt_mmu_change c;

	shunt_mmu_change_begin(&c, SHUNT_MMU_UNMAP, there, there + 4096, 0);
	shunt_mmu_change_end(&c, false, 0);
}

static shunt_mmu_notifier_ops ops;
static shunt_mmu_notifier notifier;

// Around it all a handler that would swallow it.
static void in_start()
{
	try {
		ops.invalidate_range_start = throws;
		shunt_mmu_notifier_register(&notifier);
		change();
	} catch (...) {
	}
}

static void in_end()
{
	try {
		ops.invalidate_range_start = catches;
		ops.invalidate_range_end = throws;
		shunt_mmu_notifier_register(&notifier);
		change();
	} catch (...) {
	}
}

static void in_interval()
{
	static shunt_mmu_interval_ops iops;
	static shunt_mmu_interval i;

	iops.invalidate = interval_throws;
	i.ops = &iops;
	i.flags = SHUNT_MMU_PARTIAL;
	try {
		shunt_mmu_interval_insert(&i, there, 4096);
		change();
	} catch (...) {
	}
}

static bool aborts(void (*fn)())
{
	char text[400] = "";
	int p[2], status;
	size_t n = 0;
	ssize_t r;

	if (pipe(p))
		return false;
	pid_t pid = fork();
	if (!pid) {
		dup2(p[1], 2);
		fn();
		_exit(0);
	}
	close(p[1]);
	while (n + 1 < sizeof text && (r = read(p[0], text + n, sizeof text - 1 - n)) > 0)
		n += static_cast<size_t>(r);
	close(p[0]);
	waitpid(pid, &status, 0);
	return WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT && std::strstr(text, "callback");
}

int main()
{
	notifier.ops = &ops;
	notifier.flags = SHUNT_MMU_PARTIAL;
	ok(aborts(in_start), "thrown out of start: aborts, and says why");
	ok(aborts(in_end), "out of end");
	ok(aborts(in_interval), "out of an interval's callback");
	ops.invalidate_range_start = catches;
	ok(!shunt_mmu_notifier_register(&notifier), "registers");
	change();
	ok(caught >= 1, "one that is caught in the callback does no harm");
	ok(!shunt_mmu_notifier_unregister(&notifier), "unregisters");
	std::printf("1..%d\n", count);
	return failed != 0;
}
