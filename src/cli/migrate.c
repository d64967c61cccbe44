/* SPDX-License-Identifier: GPL-2.0-or-later */
/* xenmolt app-migrate */
#include "cli/cli.h"

#include <getopt.h>
#include <stdlib.h>
#include <string.h>

#define MAX_FOLDERS 64 /* the library says how many it takes */

struct migrate {
    xenmolt_migrate_params params;
    const char *folder[MAX_FOLDERS];
    const char *report_file;
    bool dry_run, json;
};

/* -1: go on; else the exit status. */
static int parse(struct cli *cli, struct migrate *m, int argc, char **argv)
{
    static const struct option options[] = {
        {"address", required_argument, NULL, 'a'}, {"path", required_argument, NULL, 'p'}, {"no-rehearsal", no_argument, NULL, 'T'},
        {"dry-run", no_argument, NULL, 'n'},       {"report", required_argument, NULL, 'R'}, {"json", no_argument, NULL, 'j'},
        CLI_COMMON_LONG,                           {NULL, 0, NULL, 0},
    };
    xenmolt_migrate_params *p = &m->params;
    int opt, r;

    while ((opt = getopt_long(argc, argv, ":hvnN", options, NULL)) != -1) {
        switch (opt) {
        case 'a': p->address = optarg; break;
        case 'p':
            if (p->n_folders == MAX_FOLDERS)
                return cli_usage(cli, "--path: too many directories");
            m->folder[p->n_folders++] = optarg;
            break;
        case 'T': p->no_rehearsal = 1; break;
        case 'R': m->report_file = optarg; break;
        case 'j': m->json = true; break;
        case 'n':
        case 'N': m->dry_run = true; break;
        default:
            r = cli_common_option(cli, opt, argv);
            if (r >= 0)
                return r;
        }
    }
    if (argc - optind != 3)
        return cli_usage(cli, "two domains and a unit are needed, FROM TO UNIT");
    p->from = argv[optind];
    p->to = argv[optind + 1];
    p->workload = argv[optind + 2];
    p->folders = m->folder;
    if (!strcmp(p->from, p->to))
        return cli_usage(cli, "FROM and TO are both %s", p->from);
    return -1;
}

static int check(xenmolt *x, void *ctx, char **ret_json, xenmolt_error **err)
{
    return xenmolt_app_migrate_preflight(x, &((const struct migrate *)ctx)->params, ret_json, err);
}

static int start(xenmolt *x, void *ctx, char **ret_json, xenmolt_error **err)
{
    return xenmolt_app_migrate(x, &((const struct migrate *)ctx)->params, ret_json, err);
}

int cli_app_migrate(struct cli *cli, int argc, char **argv)
{
    struct migrate m = {.params = {.size = sizeof(m.params)}, .dry_run = cli->dry_run};
    int r = parse(cli, &m, argc, argv);
    const struct cli_run run = {.domain = m.params.from, .report_file = m.report_file, .json = m.json, .check = check, .start = start, .ctx = &m};

    if (r >= 0 || (m.report_file && (r = cli_check_report_file(cli, m.report_file)) > 0))
        return r;
    return m.dry_run ? cli_run_check(cli, &run) : cli_run_operation(cli, &run);
}
