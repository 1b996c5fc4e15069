/* SPDX-License-Identifier: MIT */
/* cmd.h - the subcommands. Each returns the command's exit status. */
#ifndef SHUNT_CMD_CMD_H
#define SHUNT_CMD_CMD_H

int shunt_cmd_record(int argc, char **argv);
int shunt_cmd_report(int argc, char **argv);
int shunt_cmd_dump(int argc, char **argv);
int shunt_cmd_enable(int argc, char **argv);
int shunt_cmd_disable(int argc, char **argv);
int shunt_cmd_list(int argc, char **argv);
int shunt_cmd_set(int argc, char **argv);
int shunt_cmd_watch(int argc, char **argv);
int shunt_cmd_probe(int argc, char **argv);
int shunt_cmd_stat(int argc, char **argv);

#endif
