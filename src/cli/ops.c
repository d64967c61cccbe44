/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The op-* subcommands and domain-monitor. */
#include "cli/cli.h"

#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"

#define ABORT_WAIT_S 600
#define MAX_HOURS    1000000 /* a century */

struct ops_options {
    bool json, report, discard;
    int wait_s;
    long older_h; /* op-commit --older-than, in hours; -1: not given */
    const char *log;
};

/* One parser for all: each subcommand names the long options that it takes. -1: go on. */
static int parse(struct cli *cli, struct ops_options *o, const char *takes, int argc, char **argv)
{
    static const struct option options[] = {
        {"json", no_argument, NULL, 'j'},
        {"report", no_argument, NULL, 'R'},
        {"discard-new-writes", no_argument, NULL, 'D'},
        {"wait", required_argument, NULL, 'W'},
        {"log", required_argument, NULL, 'L'},
        {"older-than", required_argument, NULL, 'O'},
        CLI_COMMON_LONG,
        {NULL, 0, NULL, 0},
    };
    int opt, r;
    char *end;

    while ((opt = getopt_long(argc, argv, ":hv", options, NULL)) != -1) {
        if (opt < 256 && strchr("jRDWLO", opt) && !strchr(takes, opt))
            return cli_usage(cli, "unknown option %s", argv[optind - 1]);
        switch (opt) {
        case 'j': o->json = true; break;
        case 'R': o->report = true; break;
        case 'D': o->discard = true; break;
        case 'L': o->log = optarg; break;
        case 'W':
            o->wait_s = (int)strtol(optarg, &end, 10);
            if (end == optarg || *end || o->wait_s < 0)
                return cli_usage(cli, "--wait takes a number of seconds, not %s", optarg);
            break;
        case 'O':
            o->older_h = strtol(optarg, &end, 10);
            if (end == optarg || *end || o->older_h < 0 || o->older_h > MAX_HOURS)
                return cli_usage(cli, "--older-than takes a number of hours, not %s", optarg);
            break;
        default:
            r = cli_common_option(cli, opt, argv);
            if (r >= 0)
                return r;
        }
    }
    if (cli->dry_run)
        return cli_usage(cli, "has no dry run");
    return -1;
}

static int get(struct cli *cli, const char *id,
               int (*fn)(xenmolt *x, const char *id, char **ret, xenmolt_error **err), struct molt_json **ret)
{
    CLEANUP_FREE char *text = NULL;
    xenmolt_error *err = NULL;
    xenmolt *x = NULL;
    int r = cli_open(cli, &x);

    if (r)
        return r;
    r = fn(x, id, &text, &err);
    xenmolt_close(x);
    if (r == 0 && text && molt_json_parse(text, strlen(text), ret, &err) < 0)
        r = molt_error_code(err);
    return cli_result(cli, r, err);
}

static int list(xenmolt *x, const char *id, char **ret, xenmolt_error **err)
{
    (void)id;
    return xenmolt_op_list(x, ret, err);
}

static const char *str(const struct molt_json *v, const char *key)
{
    const char *s = molt_json_get_string(v, key);

    return s ? s : "-";
}

int cli_op_list(struct cli *cli, int argc, char **argv)
{
    CLEANUP_JSON struct molt_json *v = NULL;
    struct ops_options o = {0};
    int r = parse(cli, &o, "j", argc, argv);

    if (r >= 0)
        return r;
    if (optind < argc)
        return cli_usage(cli, "takes no argument, but there is %s", argv[optind]);
    r = get(cli, NULL, list, &v);
    if (r)
        return r;
    if (o.json) {
        cli_print_json(v, true);
        return 0;
    }
    printf("%-26s %-14s %-16s %-10s %-14s %s\n", "OPERATION", "KIND", "DOMAIN", "STATE", "STEP", "RUNNER");
    for (size_t i = 0; i < molt_json_size(v); i++) {
        const struct molt_json *op = molt_json_at(v, i);
        int64_t pid = molt_json_get_int(op, "runner", 0);

        printf("%-26s %-14s %-16s %-10s %-14s ", str(op, "id"), str(op, "kind"), str(op, "subject"),
               str(op, "state"), str(op, "step"));
        if (pid)
            printf("%" PRId64 "\n", pid);
        else
            printf("-\n");
    }
    return 0;
}

static void print_phases(const struct molt_json *phases)
{
    for (size_t i = 0; i < molt_json_size(phases); i++) {
        const struct molt_json *p = molt_json_at(phases, i);

        printf("  %-20s %s  %s\n", str(p, "name"), str(p, "started"), str(p, "ended"));
    }
}

static void print_show(const struct molt_json *v)
{
    static const char *const keys[] = {"id",     "kind",    "subject", "state", "step",
                                       "runner", "created", "updated", "error", "dir"};
    const struct molt_json *report = molt_json_get(v, "report"), *params = molt_json_get(v, "params");

    for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
        CLEANUP_STRBUF struct molt_strbuf b = MOLT_STRBUF_INIT;
        const struct molt_json *m = molt_json_get(v, keys[i]);

        if (molt_json_type(m) == MOLT_JSON_NULL)
            continue;
        if (molt_json_type(m) == MOLT_JSON_INT)
            molt_strbuf_addf(&b, "%" PRId64, molt_json_intval(m, 0));
        else
            cli_format_value("", m, &b);
        printf("%-10s %s\n", keys[i], molt_strbuf_str(&b));
    }
    for (size_t i = 0; i < molt_json_size(params); i++) {
        CLEANUP_STRBUF struct molt_strbuf b = MOLT_STRBUF_INIT;

        cli_format_value("", molt_json_at(params, i), &b);
        printf("%-10s %s=%s\n", i ? "" : "params", molt_json_key_at(params, i), molt_strbuf_str(&b));
    }
    if (molt_streq(str(v, "state"), "waiting"))
        printf("%-10s until %s; xenmolt delta-merge -n %s shows the merge\n", "waits", str(molt_json_get(v, "notes"), "waits_until"), str(v, "id"));
    if (molt_json_size(molt_json_get(v, "phases")))
        printf("steps\n");
    print_phases(molt_json_get(v, "phases"));
    if (molt_json_size(report))
        cli_print_summary(report);
}

int cli_op_show(struct cli *cli, int argc, char **argv)
{
    CLEANUP_JSON struct molt_json *v = NULL;
    struct ops_options o = {0};
    const char *id;
    int r = parse(cli, &o, "jR", argc, argv);

    if (r >= 0)
        return r;
    id = cli_one_argument(cli, argc, argv, "OPERATION");
    if (!id)
        return CLI_STATUS_USAGE;
    r = get(cli, id, xenmolt_op_show, &v);
    if (r)
        return r;
    if (o.report) {
        const struct molt_json *report = molt_json_get(v, "report");

        if (molt_json_type(report) != MOLT_JSON_OBJECT) {
            fprintf(stderr, "xenmolt op-show: %s has no report: it is %s\n", str(v, "id"), str(v, "state"));
            return xenmolt_exit_status(MOLT_E_STATE);
        }
        cli_print_json(report, true);
    } else if (o.json) {
        cli_print_json(v, true);
    } else {
        print_show(v);
    }
    return 0;
}

/* What a record says beside its type and step. */
static void print_record(const struct molt_json *rec)
{
    static const char *const known[] = {"seq", "at", "type", "step", "crc", "from"};
    char stamp[MOLT_STAMP_MAX];

    printf("%s %-7s %s", molt_stamp(molt_json_get_int(rec, "at", 0), stamp), str(rec, "type"),
           str(rec, "step"));
    for (size_t i = 0; i < molt_json_size(rec); i++) {
        CLEANUP_FREE char *text = NULL;
        const char *key = molt_json_key_at(rec, i);
        bool skip = false;

        for (size_t k = 0; k < sizeof(known) / sizeof(known[0]); k++)
            skip = skip || !strcmp(key, known[k]);
        if (skip)
            continue;
        text = molt_json_print(molt_json_at(rec, i), false);
        printf(" %s=%s", key, text);
    }
    putchar('\n');
}

int cli_op_log(struct cli *cli, int argc, char **argv)
{
    CLEANUP_JSON struct molt_json *v = NULL;
    struct ops_options o = {0};
    const char *id;
    int r = parse(cli, &o, "j", argc, argv);

    if (r >= 0)
        return r;
    id = cli_one_argument(cli, argc, argv, "OPERATION");
    if (!id)
        return CLI_STATUS_USAGE;
    r = get(cli, id, xenmolt_op_log, &v);
    if (r)
        return r;
    if (o.json)
        cli_print_json(v, true);
    for (size_t i = 0; !o.json && i < molt_json_size(v); i++)
        print_record(molt_json_at(v, i));
    return 0;
}

/* ---- those that act ---- */

typedef int (*act_fn)(xenmolt *x, const char *id, const struct ops_options *o, xenmolt_error **err);

static int act_on(struct cli *cli, const struct ops_options *o, const char *id, act_fn fn, const char *done)
{
    struct cli_progress *p;
    xenmolt_error *err = NULL;
    xenmolt *x = NULL;
    int r;

    p = cli_progress_new(isatty(STDERR_FILENO) ? CLI_OUTPUT_TERMINAL : CLI_OUTPUT_PLAIN, cli->verbose);
    cli->log = cli_progress_log;
    cli->event = cli_progress_event;
    cli->ctx = p;
    r = cli_open(cli, &x);
    if (r) {
        cli_progress_free(p);
        return r;
    }
    r = fn(x, id, o, &err);
    xenmolt_close(x);
    cli_progress_free(p);
    cli->log = NULL;
    cli->event = NULL;
    cli->ctx = NULL;
    if (r == 0)
        printf("%s: %s\n", id, done);
    return cli_result(cli, r, err);
}

static int act(struct cli *cli, const struct ops_options *o, int argc, char **argv, act_fn fn,
               const char *done)
{
    const char *id = cli_one_argument(cli, argc, argv, "OPERATION");

    return id ? act_on(cli, o, id, fn, done) : CLI_STATUS_USAGE;
}

static int do_abort(xenmolt *x, const char *id, const struct ops_options *o, xenmolt_error **err)
{
    return xenmolt_op_abort(x, id, o->wait_s, err);
}
static int do_commit(xenmolt *x, const char *id, const struct ops_options *o, xenmolt_error **err)
{
    (void)o;
    return xenmolt_op_commit(x, id, err);
}
static int do_rollback(xenmolt *x, const char *id, const struct ops_options *o, xenmolt_error **err)
{
    return xenmolt_op_rollback(x, id, o->discard, err);
}
static int do_recover(xenmolt *x, const char *id, const struct ops_options *o, xenmolt_error **err)
{
    (void)o;
    return xenmolt_op_recover(x, id, err);
}

static int do_continue(xenmolt *x, const char *id, const struct ops_options *o, xenmolt_error **err)
{
    (void)o;
    return xenmolt_op_continue(x, id, err);
}

int cli_op_abort(struct cli *cli, int argc, char **argv)
{
    struct ops_options o = {.wait_s = ABORT_WAIT_S};
    int r = parse(cli, &o, "W", argc, argv);

    return r >= 0 ? r : act(cli, &o, argc, argv, do_abort, o.wait_s ? "aborted" : "asked to abort");
}

/* Finished, for so long, and not started with --keep-active. */
static bool is_due(struct cli *cli, const struct molt_json *op, const char *before, int *r)
{
    CLEANUP_JSON struct molt_json *v = NULL;

    if (!molt_streq(molt_json_get_string(op, "state"), "done"))
        return false;
    *r = get(cli, str(op, "id"), xenmolt_op_show, &v);
    if (*r != 0 || molt_json_get_bool(molt_json_get(v, "params"), "keep_active", false))
        return false;
    /* Not "updated", which a commit that failed moves. Stamps of one form and zone: their order is that of their text. */
    const struct molt_json *phases = molt_json_get(v, "phases");
    size_t n = molt_json_size(phases);
    const char *ended = n ? molt_json_get_string(molt_json_at(phases, n - 1), "ended") : NULL;
    return ended && strcmp(ended, before) <= 0;
}

/* The retention time is over for these. One that fails does not keep the others from being committed. */
static int commit_older(struct cli *cli, const struct ops_options *o)
{
    CLEANUP_JSON struct molt_json *ops = NULL;
    char before[MOLT_STAMP_MAX];
    int status = get(cli, NULL, list, &ops);

    molt_stamp(molt_now_us() - o->older_h * INT64_C(3600000000), before);
    for (size_t i = 0; i < molt_json_size(ops); i++) {
        const struct molt_json *op = molt_json_at(ops, i);
        int r = 0;

        if (is_due(cli, op, before, &r))
            r = act_on(cli, o, str(op, "id"), do_commit, "committed");
        status = status ? status : r;
    }
    return status;
}

int cli_op_commit(struct cli *cli, int argc, char **argv)
{
    struct ops_options o = {.older_h = -1};
    int r = parse(cli, &o, "O", argc, argv);

    if (r >= 0)
        return r;
    if (o.older_h < 0)
        return act(cli, &o, argc, argv, do_commit, "committed");
    if (optind < argc)
        return cli_usage(cli, "--older-than chooses the operations itself, but there is %s", argv[optind]);
    return commit_older(cli, &o);
}

int cli_op_rollback(struct cli *cli, int argc, char **argv)
{
    struct ops_options o = {0};
    int r = parse(cli, &o, "D", argc, argv);

    if (r >= 0)
        return r;
    if (!o.discard && optind < argc)
        return cli_usage(cli, "what was written since the switch-over would be lost; confirm by "
                              "--discard-new-writes");
    return act(cli, &o, argc, argv, do_rollback, "rolled back");
}

int cli_op_recover(struct cli *cli, int argc, char **argv)
{
    struct ops_options o = {0};
    int r = parse(cli, &o, "", argc, argv);

    return r >= 0 ? r : act(cli, &o, argc, argv, do_recover, "recovered");
}

int cli_op_continue(struct cli *cli, int argc, char **argv)
{
    struct ops_options o = {0};
    int r = parse(cli, &o, "", argc, argv);

    return r >= 0 ? r : act(cli, &o, argc, argv, do_continue, "goes on");
}

int cli_domain_monitor(struct cli *cli, int argc, char **argv)
{
    struct ops_options o = {0};
    xenmolt_error *err = NULL;
    xenmolt *x = NULL;
    const char *arg;
    unsigned long domid;
    char *end;
    int r = parse(cli, &o, "L", argc, argv);

    if (r >= 0)
        return r;
    arg = cli_one_argument(cli, argc, argv, "DOMID");
    if (!arg)
        return CLI_STATUS_USAGE;
    domid = strtoul(arg, &end, 10);
    if (*end || arg[0] < '0' || arg[0] > '9' || domid == 0 || domid >= 0x7ff0)
        return cli_usage(cli, "DOMID is the number of a guest, not %s", arg);
    if (o.log) {
        int fd = open(o.log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);

        if (fd < 0)
            return cli_usage(cli, "--log %s: %m", o.log);
        dup2(fd, STDOUT_FILENO);
        dup2(fd, STDERR_FILENO);
        close(fd);
        setvbuf(stdout, NULL, _IOLBF, 0);
    }
    r = cli_open(cli, &x);
    if (r)
        return r;
    r = xenmolt_monitor(x, (uint32_t)domid, &err);
    xenmolt_close(x);
    return cli_result(cli, r, err);
}
