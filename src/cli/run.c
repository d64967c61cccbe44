/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A command that runs an operation from its beginning to its end: progress, interruption, report. */
#include "cli/cli.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fsio.h"

/* Something that is no plain file (a terminal, a pipe) is written as it is. */
static bool is_special(const char *path)
{
    struct stat st;

    return stat(path, &st) == 0 && !S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode);
}

/* Better before than after an hour's upgrade. */
int cli_check_report_file(struct cli *cli, const char *path)
{
    CLEANUP_FREE char *tmp = molt_xasprintf("%s.tmp-XXXXXX", path);
    struct stat st;
    int fd;

    if (is_special(path))
        return 0;
    if (stat(path, &st) == 0 && S_ISDIR(st.st_mode))
        return cli_usage(cli, "--report %s: is a directory", path);
    fd = mkstemp(tmp);
    if (fd < 0)
        return cli_usage(cli, "--report %s: cannot be written: %m", path);
    close(fd);
    unlink(tmp);
    return 0;
}

static int write_report(struct cli *cli, const char *path, const struct molt_json *report)
{
    CLEANUP_FREE char *json = molt_json_print(report, true);
    CLEANUP_FREE char *text = molt_xasprintf("%s\n", json);
    CLEANUP_ERROR struct molt_error *err = NULL;
    int r = is_special(path) ? molt_write_file(path, text, strlen(text), 0644, &err)
                             : molt_write_file_atomic(path, text, strlen(text), 0644, &err);

    if (r < 0)
        fprintf(stderr, "xenmolt %s: --report: %s\n", cli->command->name, molt_error_text(err));
    return r < 0 ? 1 : 0;
}

static struct molt_json *take_json(char *text)
{
    struct molt_json *v = NULL;

    if (text && molt_json_parse(text, strlen(text), &v, NULL) < 0)
        v = NULL;
    free(text);
    return v;
}

int cli_run_check(struct cli *cli, const struct cli_run *u)
{
    CLEANUP_JSON struct molt_json *v = NULL;
    xenmolt_error *err = NULL;
    xenmolt *x = NULL;
    char *text = NULL;
    int r = cli_open(cli, &x);

    if (r)
        return r;
    r = u->check(x, u->ctx, &text, &err);
    v = take_json(text);
    if (v && u->json)
        cli_print_json(v, false);
    else if (v)
        cli_print_preflight(v);
    if (v && u->report_file)
        write_report(cli, u->report_file, v);
    xenmolt_close(x);
    return cli_result(cli, r, err);
}

/* What is told of an operation that did not get as far as a report. */
static struct molt_json *stub_report(const struct cli_run *u, const char *operation)
{
    struct molt_json *v = molt_json_object();

    molt_json_set_int(v, "schema", 1);
    molt_json_set_string(v, "operation", operation);
    molt_json_set_string(v, "domain", u->domain);
    molt_json_set_string(v, "result", "refused");
    return v;
}

/* The end: the report to its file and to the screen. */
static int conclude(struct cli *cli, const struct cli_run *u, struct molt_json *report, const char *operation,
                    int r, xenmolt_error *err)
{
    CLEANUP_JSON struct molt_json *v = report ? report : stub_report(u, operation);
    int status, bad = 0;

    if (r < 0 && !molt_json_get(v, "error")) {
        struct molt_json *e = molt_json_object();

        molt_json_set_int(e, "exit_status", xenmolt_exit_status(r));
        molt_json_set_string(e, "text", xenmolt_error_text(err));
        molt_json_set(v, "error", e);
    }
    if (u->report_file)
        bad = write_report(cli, u->report_file, v);
    if (u->json)
        cli_print_json(v, false);
    else if (r == 0)
        cli_print_summary(v);
    status = cli_result(cli, r, err);
    if (r < 0 && operation && !u->json)
        fprintf(stderr, "What happened: xenmolt op-log %s\n", operation);
    return status ? status : bad;
}

int cli_run_operation(struct cli *cli, const struct cli_run *u)
{
    enum cli_output output = u->json                 ? CLI_OUTPUT_JSON
                             : isatty(STDERR_FILENO) ? CLI_OUTPUT_TERMINAL
                                                     : CLI_OUTPUT_PLAIN;
    struct cli_progress *p = cli_progress_new(output, cli->verbose);
    struct cli_interrupt *in;
    CLEANUP_FREE char *operation = NULL;
    xenmolt_error *err = NULL;
    xenmolt *x = NULL;
    char *text = NULL;
    int r;

    cli->log = cli_progress_log;
    cli->event = cli_progress_event;
    cli->ctx = p;
    r = cli_open(cli, &x);
    if (r) {
        cli_progress_free(p);
        return r;
    }
    in = cli_interrupt_start(cli, p);
    r = u->start(x, u->ctx, &text, &err);
    cli_interrupt_stop(in);
    operation = cli_progress_operation(p);
    xenmolt_close(x);
    cli_progress_free(p);
    return conclude(cli, u, take_json(text), operation, r, err);
}

