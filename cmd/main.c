/* SPDX-License-Identifier: MIT */
/* main.c - `shunt COMMAND`: finds the subcommand. */
#include <stdio.h>
#include <string.h>

#include <shunt/shunt.h>

#include "cmd.h"

static const struct {
	const char *name, *what;
	int (*run)(int argc, char **argv);
	const char *help; /* NULL: the command has its own */
} commands[] = {
	{ "record", "run a program and record the calls of its functions", shunt_cmd_record, NULL },
	{ "report", "show the calls and times of each function", shunt_cmd_report,
		"Usage: shunt report [OPTION..] [DIR]\n\n"
		"Shows the calls and times of each function in DIR (default: shunt.trace).\n\n"
		"  -s, --sort KEY     total (default), self, calls, p50, p99, max or name\n"
		"  -f, --filter GLOB  only functions of this name\n"
		"  -n, --limit N      the first N lines\n"
		"  -t, --by-thread    a line for each function and thread\n"
		"  -j, --json         one JSON object, times in nanoseconds\n" },
	{ "dump", "write a trace in other formats", shunt_cmd_dump,
		"Usage: shunt dump FORMAT [OPTION..] [DIR]\n\n"
		"Writes the trace DIR (default: shunt.trace) as:\n\n"
		"  --text             calls in the order of time, indented\n"
		"  --raw              the same, one event a line\n"
		"  --ctf OUT          Common Trace Format 1.8: a directory\n"
		"  --chrome OUT.json  for Perfetto and chrome://tracing\n"
		"  --flame OUT.svg    a flame graph\n\n"
		"  --from SECONDS     only what happened from then on\n"
		"  --to SECONDS       and until then\n"
		"  --split SECONDS    with --chrome: a file for each so many seconds\n"
		"  --thread TID       only this thread\n"
		"  --filter GLOB      only functions of this name\n" },
	{ "enable", "switch functions and tracepoints on", shunt_cmd_enable,
		"Usage: shunt enable [--filter EXPRESSION] PID GLOB..\n\n"
		"Switches functions of a recorded program on, live: names with *, ? and [..];\n"
		"OBJECT:GLOB limits a pattern to objects of that file name. PROVIDER:NAME are\n"
		"tracepoints; --filter: only such events of theirs, as 'len > 1500'.\n" },
	{ "disable", "switch functions and tracepoints off", shunt_cmd_disable,
		"Usage: shunt disable PID GLOB..\n\n"
		"Switches functions of a recorded program off, live: names with *, ? and [..];\n"
		"OBJECT:GLOB limits a pattern to objects of that file name. PROVIDER:NAME are\n"
		"tracepoints.\n" },
	{ "list", "show a running program's values, tracepoints and functions", shunt_cmd_list,
		"Usage: shunt list [--json] [--values] [--points] [--functions] PID [GLOB]\n\n"
		"Shows what a program that listens has in its instructions, immediate values,\n"
		"keys, calls and choices, its tracepoints, and of a recorded one the functions that\n"
		"can be traced, and which of them are on. --values, --points, --functions: only\n"
		"these.\n" },
	{ "set", "change a running program's values", shunt_cmd_set,
		"Usage: shunt set PID NAME=VALUE..\n\n"
		"Changes immediate values, keys, calls and choices of a program that listens\n"
		"(shunt_control_start(), SHUNT_CONTROL=1, or shunt record), live. Where several\n"
		"have the same name: OBJECT:NAME=VALUE or NAME@ADDRESS=VALUE.\n" },
	{ "watch", "follow the changes of a running program's values", shunt_cmd_watch,
		"Usage: shunt watch PID [GLOB]\n\n"
		"Shows each change of a value, key, call or choice, until interrupted or until\n"
		"the program ends.\n" },
	{ "probe", "hook any instruction of a running program", shunt_cmd_probe,
		"Usage: shunt probe add PID SPEC..\n"
		"       shunt probe del|enable|disable PID GLOB..\n"
		"       shunt probe list [--json] PID [GLOB]\n\n"
		"Sets probes in a recorded program, live, and records what they see: SPEC is\n"
		"[EVENT=][OBJECT:]FUNCTION[+OFFSET][%return][(ARGUMENT, ..)], an argument\n"
		"[NAME=]FETCHARG[:TYPE] as of the kernel's uprobe_events:\n\n"
		"  'libc.so.6:malloc(size=%rdi:u64)'\n"
		"  'libc.so.6:open64(path=+0(%rdi):string, flags=%rsi:x32)'\n"
		"  'done=sqlite3VdbeExec%return(ret=$retval:s32)'\n\n"
		"GLOB is a pattern of events' names. shunt-probe(1) says it all.\n" },
	{ "stat", "show how a recording is doing", shunt_cmd_stat,
		"Usage: shunt stat [--json] PID\n\n"
		"Shows how a recording is doing: functions, patches, events, losses, buffer.\n" },
};

static int help(void)
{
	puts("Usage: shunt COMMAND [ARG..]\n");
	for (size_t i = 0; i < sizeof commands / sizeof *commands; i++)
		printf("  %-8s  %s\n", commands[i].name, commands[i].what);
	puts("\n'shunt COMMAND --help' says more.");
	return 0;
}

int main(int argc, char **argv)
{
	const char *word = argc > 1 ? argv[1] : "";

	if (!strcmp(word, "help") || !strcmp(word, "--help"))
		return help();
	if (!strcmp(word, "--version")) {
		printf("shunt %s\n", shunt_version());
		return 0;
	}
	for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
		if (strcmp(word, commands[i].name))
			continue;
		if (commands[i].help && argc == 3 &&
			(!strcmp(argv[2], "--help") || !strcmp(argv[2], "-h"))) {
			fputs(commands[i].help, stdout);
			return 0;
		}
		return commands[i].run(argc - 1, argv + 1);
	}
	fprintf(stderr, "shunt: '%s' is no command: 'shunt help' lists them\n", word);
	return 2;
}
