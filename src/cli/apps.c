/* SPDX-License-Identifier: GPL-2.0-or-later */
/* xenmolt app-overlays: who still runs old code. What is printed of the guest's was made harmless by the library. */
#include "cli/cli.h"

#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/cleanup.h"

/* -1: go on; else the exit status. */
static int parse(struct cli *cli, bool *ret_json, const char **ret_domain, int argc, char **argv)
{
    static const struct option options[] = {{"json", no_argument, NULL, 'j'}, CLI_COMMON_LONG, {NULL, 0, NULL, 0}};
    int opt, r;

    while ((opt = getopt_long(argc, argv, ":hv", options, NULL)) != -1) {
        if (opt == 'j') {
            *ret_json = true;
            continue;
        }
        r = cli_common_option(cli, opt, argv);
        if (r >= 0)
            return r;
    }
    *ret_domain = cli_one_argument(cli, argc, argv, "DOMAIN");
    return *ret_domain ? -1 : CLI_STATUS_USAGE;
}

/* "3 days", the largest unit alone. */
static void print_age(int64_t s)
{
    static const struct {
        int64_t s;
        const char *one;
    } units[] = {{86400, "day"}, {3600, "hour"}, {60, "minute"}, {1, "second"}};
    size_t i = 0;

    while (i < 3 && s < units[i].s)
        i++;
    printf("%" PRId64 " %s%s", s / units[i].s, units[i].one, s / units[i].s == 1 ? "" : "s");
}

static const char *text_of(const struct molt_json *v, const char *key, const char *otherwise)
{
    const char *s = molt_json_get_string(v, key);

    return s ? s : otherwise;
}

static void print_overlay(const struct molt_json *o)
{
    const struct molt_json *packages = molt_json_get(o, "packages");
    time_t since = (time_t)molt_json_get_int(o, "since", 0);
    char date[64] = "?";
    struct tm tm;

    if (since > 0 && gmtime_r(&since, &tm))
        strftime(date, sizeof(date), "%Y-%m-%d %H:%M UTC", &tm);
    printf("%s  (PID %" PRId64 ")  %zu old files since %s\n", text_of(o, "unit", "?"), molt_json_get_int(o, "main_pid", 0), molt_json_size(molt_json_get(o, "files")), date);
    for (size_t i = 0; i < molt_json_size(packages); i++) {
        const struct molt_json *p = molt_json_at(packages, i);

        printf("    %-32s runs %s, installed %s", text_of(p, "package", "?"), text_of(p, "runs", "?"), text_of(p, "installed", "nothing"));
        if (molt_json_get(p, "replaced_s")) {
            printf(", old for ");
            print_age(molt_json_get_int(p, "replaced_s", 0));
        }
        printf("\n");
    }
}

int cli_app_overlays(struct cli *cli, int argc, char **argv)
{
    CLEANUP_JSON struct molt_json *v = NULL;
    CLEANUP_FREE char *text = NULL;
    const char *domain = NULL;
    xenmolt_error *err = NULL;
    xenmolt *x = NULL;
    bool json = false;
    int r = parse(cli, &json, &domain, argc, argv);

    if (r >= 0)
        return r;
    if ((r = cli_open(cli, &x)) != 0)
        return r;
    r = xenmolt_app_overlays(x, domain, &text, &err);
    xenmolt_close(x);
    if (r == 0 && molt_json_parse(text, strlen(text), &v, NULL) == 0) {
        const struct molt_json *list = molt_json_get(v, "overlays");

        if (json)
            cli_print_json(v, true);
        for (size_t i = 0; i < molt_json_size(list) && !json; i++)
            print_overlay(molt_json_at(list, i));
        if (molt_json_size(list) == 0 && !json)
            printf("no service of %s runs old code of an upgrade\n", domain);
    }
    return cli_result(cli, r, err);
}
