/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the files of the xenmolt command share. The command sees the public header and src/base only. */
#ifndef MOLT_CLI_H
#define MOLT_CLI_H

#include <stdbool.h>
#include <stddef.h>

#include "base/json.h"
#include "base/strbuf.h"
#include "xenmolt.h"

#define CLI_STATUS_USAGE 2

struct cli {
    const char *state_dir; /* NULL: the library's default */
    int verbose;           /* -v: 1, -vv: 2 */
    bool dry_run;          /* xl's -N */
    const struct cli_command *command;
    void (*log)(void *ctx, enum xenmolt_level level, const char *line); /* NULL: plain lines on stderr */
    void (*event)(void *ctx, const xenmolt_event *event);
    void *ctx;
};

struct cli_command {
    const char *name;
    const char *synopsis; /* behind "xenmolt NAME " */
    const char *summary;
    const char *help; /* options and remarks; lines end in newlines; may be "" */
    bool shim;        /* xl hands it to us once the shim is installed */
    int (*run)(struct cli *cli, int argc, char **argv); /* argv[0]: the subcommand; returns the exit status */
};

extern const struct cli_command cli_commands[]; /* ends with name NULL */

/* main.c */
const struct cli_command *cli_find(const char *name);
void cli_help(const struct cli_command *c);
/* Prints "xenmolt NAME: text" and a hint at the help; returns the exit status for bad usage. */
int cli_usage(const struct cli *cli, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Prints the error of a library call, frees it, and returns the exit status for code. 0: returns 0. */
int cli_result(const struct cli *cli, int code, xenmolt_error *err);
int cli_open(struct cli *cli, xenmolt **ret);
/* What every subcommand does with a getopt result that it has no case for: -h, -v, else a usage error.
 * -1: go on; else the exit status. */
int cli_common_option(struct cli *cli, int opt, char **argv);
#define CLI_OPT_STATE_DIR 0x1000
/* clang-format off */
#define CLI_COMMON_LONG                                                     \
    {"help", no_argument, NULL, 'h'}, {"verbose", no_argument, NULL, 'v'},  \
    {"state-dir", required_argument, NULL, CLI_OPT_STATE_DIR}
/* clang-format on */
/* Exactly one argument is left behind the options: returns it, or NULL after a usage message. */
const char *cli_one_argument(struct cli *cli, int argc, char **argv, const char *what);
void cli_print_json(const struct molt_json *v, bool pretty);

/* progress.c: events and log lines on the screen */
enum cli_output { CLI_OUTPUT_TERMINAL, CLI_OUTPUT_PLAIN, CLI_OUTPUT_JSON };
struct cli_progress;
struct cli_progress *cli_progress_new(enum cli_output output, int verbose);
void cli_progress_event(void *ctx, const xenmolt_event *event);
void cli_progress_log(void *ctx, enum xenmolt_level level, const char *line);
void cli_progress_tick(struct cli_progress *p); /* redraws the elapsed time */
void cli_progress_say(struct cli_progress *p, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* The operation's id, once an event told it; malloc'd or NULL. */
char *cli_progress_operation(struct cli_progress *p);
void cli_progress_free(struct cli_progress *p);

/* interrupt.c: SIGINT and SIGTERM ask for an abort; also keeps the elapsed time going */
struct cli_interrupt;
struct cli_interrupt *cli_interrupt_start(struct cli *cli, struct cli_progress *p);
void cli_interrupt_stop(struct cli_interrupt *i);

/* summary.c */
void cli_print_preflight(const struct molt_json *preflight);
void cli_print_summary(const struct molt_json *report);
void cli_format_value(const char *key, const struct molt_json *v, struct molt_strbuf *out);

/* run.c: a command that runs an operation. The functions on files return 0 or an exit status, and have told why. */
struct cli_run {
    const char *domain; /* for the report of one that was refused */
    const char *report_file;
    bool json;
    int (*check)(xenmolt *x, void *ctx, char **ret_json, xenmolt_error **err); /* its checks alone */
    int (*start)(xenmolt *x, void *ctx, char **ret_json, xenmolt_error **err);
    void *ctx;
};
int cli_run_check(struct cli *cli, const struct cli_run *run);
int cli_run_operation(struct cli *cli, const struct cli_run *run);
int cli_check_report_file(struct cli *cli, const char *path); /* better before than after an hour */

/* upgrade.c: "a" -> "a,b"; list is malloc'd or NULL */
void cli_add_word(char **list, const char *word);

/* subcommands */
int cli_guest_upgrade(struct cli *cli, int argc, char **argv);
int cli_op_list(struct cli *cli, int argc, char **argv);
int cli_op_show(struct cli *cli, int argc, char **argv);
int cli_op_log(struct cli *cli, int argc, char **argv);
int cli_op_abort(struct cli *cli, int argc, char **argv);
int cli_op_commit(struct cli *cli, int argc, char **argv);
int cli_op_rollback(struct cli *cli, int argc, char **argv);
int cli_op_continue(struct cli *cli, int argc, char **argv);
int cli_delta_merge(struct cli *cli, int argc, char **argv);
int cli_op_recover(struct cli *cli, int argc, char **argv);
int cli_app_migrate(struct cli *cli, int argc, char **argv);
int cli_app_compare(struct cli *cli, int argc, char **argv);
int cli_app_overlays(struct cli *cli, int argc, char **argv);
int cli_domain_monitor(struct cli *cli, int argc, char **argv);
int cli_shim_install(struct cli *cli, int argc, char **argv);
int cli_shim_remove(struct cli *cli, int argc, char **argv);

#endif
