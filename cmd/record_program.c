/* SPDX-License-Identifier: MIT */
/*
 * record_program.c - the program to record: found, judged, started.
 *
 * What the loader would silently ignore is said before the program runs: a
 * static program or one with more privileges than its caller loads no agent,
 * and its recording would be empty without a word.
 */
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "record.h"

extern char **environ;

/* As execvp() would. Exit codes 126 and 127 as in a shell. */
static int find_path(char path[PATH_MAX], const char *name)
{
	const char *dirs = getenv("PATH");
	bool found = false;

	if (strchr(name, '/')) {
		snprintf(path, PATH_MAX, "%s", name);
		if (!access(path, X_OK))
			return 0;
		shunt_say("cannot run %s: %s", name, strerror(errno));
		return errno == ENOENT ? 127 : 126;
	}
	for (dirs = dirs ? dirs : "/bin:/usr/bin"; dirs; dirs = strchr(dirs, ':')) {
		struct stat st;
		int n;

		dirs += *dirs == ':';
		n = (int)strcspn(dirs, ":");
		snprintf(path, PATH_MAX, "%.*s%s%s", n, dirs, n ? "/" : "./", name);
		if (stat(path, &st) || !S_ISREG(st.st_mode))
			continue;
		if (!access(path, X_OK))
			return 0;
		found = true;
	}
	shunt_say("cannot run %s: %s", name,
		found ? "permission denied" : "no such program in PATH");
	return found ? 126 : 127;
}

/* Whether the kernel runs it with rights that its caller does not have. */
static bool privileged(const char *path, const struct stat *st)
{
	if ((st->st_mode & S_ISUID) && st->st_uid != getuid())
		return true;
	if ((st->st_mode & (S_ISGID | S_IXGRP)) == (S_ISGID | S_IXGRP) &&
		st->st_gid != getgid())
		return true;
	return getuid() != 0 && getxattr(path, "security.capability", NULL, 0) > 0;
}

/* Whether an ELF file of our class asks for the loader. */
static bool has_interpreter(int fd, const Elf64_Ehdr *eh)
{
	Elf64_Phdr ph;

	for (unsigned i = 0; i < eh->e_phnum; i++) {
		off_t at = (off_t)(eh->e_phoff + (uint64_t)i * eh->e_phentsize);

		if (pread(fd, &ph, sizeof ph, at) != sizeof ph)
			return true; /* let the kernel judge */
		if (ph.p_type == PT_INTERP)
			return true;
	}
	return false;
}

static const char *why_not(const char *path)
{
	struct stat st;
	Elf64_Ehdr eh;
	const char *why = NULL;
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n;

	if (fd < 0)
		return NULL; /* executable, but not readable: try */
	n = pread(fd, &eh, sizeof eh, 0);
	if (fstat(fd, &st) == 0 && privileged(path, &st))
		why = "it is setuid, setgid or has capabilities, and the loader then ignores "
		      "LD_PRELOAD: record it as the user that it runs as";
	else if (n >= EI_NIDENT && !memcmp(eh.e_ident, ELFMAG, SELFMAG)) {
		if (n < (ssize_t)sizeof eh || eh.e_ident[EI_CLASS] != ELFCLASS64 ||
			eh.e_machine != EM_X86_64)
			why = "it is not an x86-64 program";
		else if (!has_interpreter(fd, &eh))
			why = "it is statically linked, so nothing can be preloaded: link it "
			      "dynamically";
	}
	close(fd);
	return why;
}

int shunt_program_find(struct shunt_program *p, char **argv)
{
	const char *why;
	int code = find_path(p->path, argv[0]);

	if (code)
		return code;
	p->argv = argv;
	why = why_not(p->path);
	if (!why)
		return 0;
	shunt_say("cannot record %s: %s", argv[0], why);
	return 1;
}

/* ---- the agent and the environment ---- */

/* Beside the command: as installed, or in the build tree. */
static bool find_agent(char path[PATH_MAX])
{
	static const char *const places[] = {
		"../lib/shunt/libshunt-agent.so",
		"../lib/x86_64-linux-gnu/shunt/libshunt-agent.so",
		"../lib64/shunt/libshunt-agent.so",
		"../agent/libshunt-agent.so",
	};
	const char *set = getenv("SHUNT_AGENT");
	char self[PATH_MAX], try[PATH_MAX + 64];
	ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);

	if (set)
		return realpath(set, path);
	if (n < 0)
		return false;
	self[n] = 0;
	*strrchr(self, '/') = 0;
	for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
		snprintf(try, sizeof try, "%s/%s", self, places[i]);
		if (realpath(try, path))
			return true;
	}
	return false;
}

static bool is_ours(const char *entry)
{
	static const char *const names[] = { "LD_PRELOAD=", "SHUNT_DIR=", "SHUNT_OUT=",
		"SHUNT_RULES=", "SHUNT_DEPTH=", "SHUNT_CHILDREN=", "SHUNT_CONTROL=",
		"SHUNT_EVENTS=", "SHUNT_PROBES=", "SHUNT_UNMODIFIED=" };

	for (size_t i = 0; i < sizeof names / sizeof *names; i++)
		if (!strncmp(entry, names[i], strlen(names[i])))
			return true;
	return false;
}

struct env {
	char **list;
	size_t n;
	bool failed;
};

__attribute__((format(printf, 2, 3))) static void env_add(struct env *e, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	if (vasprintf(&e->list[e->n], fmt, ap) < 0)
		e->failed = true;
	else
		e->n++;
	va_end(ap);
}

/*
 * LD_PRELOAD is split at spaces and colons: an agent in such a place is led to
 * by a link.
 */
static const char *preloadable(const char *agent, const struct shunt_recording *r, char *link)
{
	if (!strpbrk(agent, " :"))
		return agent;
	snprintf(link, PATH_MAX, "%s/libshunt-agent.so", r->shm);
	return symlink(agent, link) ? NULL : link;
}

int shunt_program_env(struct shunt_program *p, const struct shunt_recording *r,
	const struct shunt_record_options *o)
{
	const char *theirs = getenv("LD_PRELOAD"), *preload;
	char agent[PATH_MAX], link[PATH_MAX];
	struct env e = { 0 };
	size_t n = 0;

	if (!find_agent(agent)) {
		shunt_say("libshunt-agent.so is not where it was installed: say where in "
			  "SHUNT_AGENT");
		return 1;
	}
	preload = preloadable(agent, r, link);
	while (environ[n])
		n++;
	e.list = calloc(n + 10, sizeof *e.list);
	if (!e.list || !preload) {
		shunt_say("cannot start: %s", strerror(errno));
		return 1;
	}
	for (size_t i = 0; i < n; i++)
		if (!is_ours(environ[i]))
			e.list[e.n++] = environ[i];
	env_add(&e, "LD_PRELOAD=%s%s%s", preload, theirs && *theirs ? ":" : "",
		theirs ? theirs : "");
	env_add(&e, "SHUNT_DIR=%s", r->shm);
	env_add(&e, "SHUNT_OUT=%s", r->dir);
	env_add(&e, "SHUNT_RULES=%s", o->rules);
	env_add(&e, "SHUNT_CHILDREN=%s", o->children ? "trace" : "stop");
	if (o->depth)
		env_add(&e, "SHUNT_DEPTH=%s", o->depth);
	if (o->unmodified)
		env_add(&e, "SHUNT_UNMODIFIED=%s", o->unmodified);
	if (o->events)
		env_add(&e, "SHUNT_EVENTS=%s", o->events);
	if (o->probes)
		env_add(&e, "SHUNT_PROBES=%s", o->probes);
	if (!o->control)
		env_add(&e, "SHUNT_CONTROL=0");
	p->env = e.list;
	return e.failed ? 1 : 0;
}

/* ---- start ---- */

/*
 * A script without "#!" is the shell's, as in execvp().
 */
static void become(const struct shunt_program *p)
{
	size_t n = 0;
	char **argv;

	execve(p->path, p->argv, p->env);
	if (errno != ENOEXEC)
		return;
	while (p->argv[n])
		n++;
	argv = calloc(n + 2, sizeof *argv);
	if (!argv)
		return;
	argv[0] = p->argv[0];
	argv[1] = (char *)p->path;
	memcpy(argv + 2, p->argv + 1, n * sizeof *argv);
	execve("/bin/sh", argv, p->env);
}

pid_t shunt_program_start(const struct shunt_program *p, const void *mask)
{
	int fds[2], err = 0;
	pid_t pid;

	if (pipe2(fds, O_CLOEXEC))
		return -errno;
	pid = fork();
	if (!pid) {
		sigprocmask(SIG_SETMASK, mask, NULL);
		become(p);
		err = errno;
		if (write(fds[1], &err, sizeof err) < 0)
			_exit(126);
		_exit(127);
	}
	close(fds[1]);
	/* closed by a successful exec */
	if (pid > 0 && read(fds[0], &err, sizeof err) == sizeof err)
		waitpid(pid, NULL, 0);
	close(fds[0]);
	if (pid < 0)
		return -errno;
	return err ? -err : pid;
}
