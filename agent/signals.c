/* SPDX-License-Identifier: MIT */
/*
 * signals.c - SIGTRAP stays the program's own.
 *
 * When sites are switched by breakpoints, the text engine needs SIGTRAP's
 * handler. What the program installs for SIGTRAP is therefore kept by the
 * engine, which calls it for traps that are not ours; sigaction and its older
 * kin go there for this one signal and nowhere new for all others. (The engine
 * itself asks the kernel, not libc, so it does not come by here.)
 */
#include <errno.h>
#include <signal.h>

#include "agent.h"
#include "text/text_internal.h"

typedef int sigaction_fn(int, const struct sigaction *, struct sigaction *);
typedef void (*handler_fn)(int);
typedef handler_fn signal_fn(int, handler_fn);

handler_fn bsd_signal(int sig, handler_fn handler);
handler_fn __sysv_signal(int sig, handler_fn handler);

static int next_sigaction(int sig, const struct sigaction *act, struct sigaction *old)
{
	static _Atomic(sigaction_fn *) real;

	if (!real)
		real = (sigaction_fn *)shunt_agent_next("sigaction");
	return real(sig, act, old);
}

SHUNT_INTERPOSE int sigaction(int sig, const struct sigaction *act, struct sigaction *old)
{
	int err;

	if (sig != SIGTRAP)
		return next_sigaction(sig, act, old);
	err = shunt_text_sigaction(sig, act, old);
	if (!err)
		return 0;
	errno = -err;
	return -1;
}

/* signal() for SIGTRAP, with the flags of its family. */
static handler_fn trap_handler(handler_fn handler, int flags)
{
	struct sigaction act = { .sa_handler = handler, .sa_flags = flags }, old;

	if (handler == SIG_ERR) {
		errno = EINVAL;
		return SIG_ERR;
	}
	sigemptyset(&act.sa_mask);
	if (!(flags & SA_NODEFER))
		sigaddset(&act.sa_mask, SIGTRAP);
	return sigaction(SIGTRAP, &act, &old) ? SIG_ERR : old.sa_handler;
}

static handler_fn next_signal(const char *name, int sig, handler_fn handler)
{
	signal_fn *real = (signal_fn *)shunt_agent_next(name);

	return real(sig, handler);
}

SHUNT_INTERPOSE handler_fn signal(int sig, handler_fn handler)
{
	return sig == SIGTRAP ? trap_handler(handler, SA_RESTART) :
				next_signal("signal", sig, handler);
}

SHUNT_INTERPOSE handler_fn bsd_signal(int sig, handler_fn handler)
{
	return sig == SIGTRAP ? trap_handler(handler, SA_RESTART) :
				next_signal("bsd_signal", sig, handler);
}

SHUNT_INTERPOSE handler_fn ssignal(int sig, handler_fn handler)
{
	return sig == SIGTRAP ? trap_handler(handler, SA_RESTART) :
				next_signal("ssignal", sig, handler);
}

SHUNT_INTERPOSE handler_fn sysv_signal(int sig, handler_fn handler)
{
	return sig == SIGTRAP ? trap_handler(handler, SA_RESETHAND | SA_NODEFER) :
				next_signal("sysv_signal", sig, handler);
}

SHUNT_INTERPOSE handler_fn __sysv_signal(int sig, handler_fn handler)
{
	return sig == SIGTRAP ? trap_handler(handler, SA_RESETHAND | SA_NODEFER) :
				next_signal("__sysv_signal", sig, handler);
}
