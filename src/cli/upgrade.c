/* SPDX-License-Identifier: GPL-2.0-or-later */
/* xenmolt guest-upgrade */
#include "cli/cli.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fsio.h"

struct upgrade {
    xenmolt_upgrade_params params;
    const char *report_file;
    char *merge_disks, *workload;
    bool dry_run, json;
};

void cli_add_word(char **list, const char *word)
{
    char *longer = *list ? molt_xasprintf("%s,%s", *list, word) : molt_xstrdup(word);

    free(*list);
    *list = longer;
}

/* 0: no such number. */
static int hours(const char *text)
{
    char *end;
    long n = strtol(text, &end, 10);

    return end != text && !*end && n >= 1 && n <= XENMOLT_WAIT_HOURS_MAX ? (int)n : 0;
}

/* -1: go on; else the exit status. */
static int parse(struct cli *cli, struct upgrade *u, int argc, char **argv)
{
    static const struct option options[] = {
        {"workload", required_argument, NULL, 'w'},
        {"recipe", required_argument, NULL, 'r'},
        {"to", required_argument, NULL, 't'},
        {"on-conflict", required_argument, NULL, 'c'},
        {"resolve", required_argument, NULL, 'S'},
        {"wait", optional_argument, NULL, 'W'},
        {"dry-run", no_argument, NULL, 'n'},
        {"merge-disk", required_argument, NULL, 'm'},
        {"report", required_argument, NULL, 'R'},
        {"no-rehearsal", no_argument, NULL, 'T'},
        {"keep-active", no_argument, NULL, 'k'},
        {"json", no_argument, NULL, 'j'},
        CLI_COMMON_LONG,
        {NULL, 0, NULL, 0},
    };
    xenmolt_upgrade_params *p = &u->params;
    int opt, r;

    while ((opt = getopt_long(argc, argv, ":hvnN", options, NULL)) != -1) {
        switch (opt) {
        case 'w': cli_add_word(&u->workload, optarg); break;
        case 'r': p->recipe = optarg; break;
        case 't': p->recipe_arg = optarg; break;
        case 'c': p->on_conflict = optarg; break;
        case 'm': cli_add_word(&u->merge_disks, optarg); break;
        case 'S': p->resolve_file = optarg; break;
        case 'W':
            p->wait_hours = optarg ? hours(optarg) : XENMOLT_WAIT_HOURS;
            if (p->wait_hours < 1)
                return cli_usage(cli, "--wait takes a number of hours from 1 to %d, not %s", XENMOLT_WAIT_HOURS_MAX, optarg);
            break;
        case 'R': u->report_file = optarg; break;
        case 'T': p->no_rehearsal = 1; break;
        case 'k': p->keep_active = 1; break;
        case 'j': u->json = true; break;
        case 'n':
        case 'N': u->dry_run = true; break;
        default:
            r = cli_common_option(cli, opt, argv);
            if (r >= 0)
                return r;
        }
    }
    if (p->on_conflict && !molt_streq(p->on_conflict, "active") && !molt_streq(p->on_conflict, "upgrade") &&
        !molt_streq(p->on_conflict, "refuse"))
        return cli_usage(cli, "--on-conflict is active, upgrade or refuse, not %s", p->on_conflict);
    if (p->recipe_arg && !p->recipe)
        p->recipe = "debian-release";
    p->merge_disks = u->merge_disks;
    p->workload = u->workload;
    p->domain = cli_one_argument(cli, argc, argv, "DOMAIN");
    return p->domain ? -1 : CLI_STATUS_USAGE;
}

/* Something that is no plain file (a terminal, a pipe) is written as it is. */
static bool is_special(const char *path)
{
    struct stat st;

    return stat(path, &st) == 0 && !S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode);
}

/* Better before than after an hour's upgrade. */
static int check_report_file(struct cli *cli, const char *path)
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

/* What is told of an upgrade that did not get as far as a report. */
static struct molt_json *stub_report(const struct upgrade *u, const char *operation)
{
    struct molt_json *v = molt_json_object();

    molt_json_set_int(v, "schema", 1);
    molt_json_set_string(v, "operation", operation);
    molt_json_set_string(v, "domain", u->params.domain);
    molt_json_set_string(v, "result", "refused");
    return v;
}

static struct molt_json *take_json(char *text)
{
    struct molt_json *v = NULL;

    if (text && molt_json_parse(text, strlen(text), &v, NULL) < 0)
        v = NULL;
    free(text);
    return v;
}

static int preflight(struct cli *cli, const struct upgrade *u)
{
    CLEANUP_JSON struct molt_json *v = NULL;
    xenmolt_error *err = NULL;
    xenmolt *x = NULL;
    char *text = NULL;
    int r = cli_open(cli, &x);

    if (r)
        return r;
    r = xenmolt_guest_upgrade_preflight(x, &u->params, &text, &err);
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

/* The end: the report to its file and to the screen. */
static int conclude(struct cli *cli, const struct upgrade *u, struct molt_json *report, const char *operation,
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

static int run(struct cli *cli, const struct upgrade *u)
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
    r = xenmolt_guest_upgrade(x, &u->params, &text, &err);
    cli_interrupt_stop(in);
    operation = cli_progress_operation(p);
    xenmolt_close(x);
    cli_progress_free(p);
    return conclude(cli, u, take_json(text), operation, r, err);
}

/* An admin's typing error shows before anything else, and costs no upgrade. */
static int begin(struct cli *cli, const struct upgrade *u)
{
    xenmolt_error *err = NULL;
    int r;

    if (u->params.resolve_file && (r = xenmolt_resolve_check(u->params.resolve_file, &err)) < 0)
        return cli_result(cli, r, err);
    if (u->report_file && (r = check_report_file(cli, u->report_file)) != 0)
        return r;
    return u->dry_run ? preflight(cli, u) : run(cli, u);
}

int cli_guest_upgrade(struct cli *cli, int argc, char **argv)
{
    struct upgrade u = {.params = {.size = sizeof(u.params)}, .dry_run = cli->dry_run};
    int r = parse(cli, &u, argc, argv);

    if (r < 0)
        r = begin(cli, &u);
    free(u.merge_disks);
    free(u.workload);
    return r;
}
