/* SPDX-License-Identifier: MIT */
/* main.c - `shunt COMMAND`: finds the subcommand. */
#include <stdio.h>
#include <string.h>

#include <shunt/shunt.h>

#include "cmd.h"

static const struct {
	const char *name, *what;
	int (*run)(int argc, char **argv);
} commands[] = {
	{ "record", "run a program and record the calls of its functions", shunt_cmd_record },
	{ "report", "show the calls and times of each function", shunt_cmd_report },
	{ "dump", "write a trace in other formats", shunt_cmd_dump },
	{ "enable", "switch functions of a recorded program on", shunt_cmd_enable },
	{ "disable", "switch functions of a recorded program off", shunt_cmd_disable },
	{ "list", "show the functions of a recorded program", shunt_cmd_list },
	{ "stat", "show how a recording is doing", shunt_cmd_stat },
};

static int help(void)
{
	puts("Usage: shunt COMMAND [ARG..]\n");
	for (size_t i = 0; i < sizeof commands / sizeof *commands; i++)
		printf("  %-8s  %s\n", commands[i].name, commands[i].what);
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
	for (size_t i = 0; i < sizeof commands / sizeof *commands; i++)
		if (!strcmp(word, commands[i].name))
			return commands[i].run(argc - 1, argv + 1);
	fprintf(stderr, "shunt: '%s' is no command: 'shunt help' lists them\n", word);
	return 2;
}
