/* SPDX-License-Identifier: GPL-2.0-or-later */
/* xenmolt guest-upgrade */
#include "cli/cli.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"

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

static int check(xenmolt *x, void *ctx, char **ret_json, xenmolt_error **err)
{
    return xenmolt_guest_upgrade_preflight(x, &((const struct upgrade *)ctx)->params, ret_json, err);
}

static int start(xenmolt *x, void *ctx, char **ret_json, xenmolt_error **err)
{
    return xenmolt_guest_upgrade(x, &((const struct upgrade *)ctx)->params, ret_json, err);
}

/* An admin's typing error shows before anything else, and costs no upgrade. */
static int begin(struct cli *cli, const struct upgrade *u)
{
    xenmolt_error *err = NULL;
    int r;

    if (u->params.resolve_file && (r = xenmolt_resolve_check(u->params.resolve_file, &err)) < 0)
        return cli_result(cli, r, err);
    if (u->report_file && (r = cli_check_report_file(cli, u->report_file)) != 0)
        return r;
    const struct cli_run run = {.domain = u->params.domain, .report_file = u->report_file, .json = u->json, .check = check, .start = start, .ctx = (void *)u};
    return u->dry_run ? cli_run_check(cli, &run) : cli_run_operation(cli, &run);
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
