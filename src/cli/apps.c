/* SPDX-License-Identifier: GPL-2.0-or-later */
/* xenmolt app-compare: what a service would find on another system; app-overlays: who still runs old code. What is printed of the guest's was made harmless by the library. */
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

struct compare {
    char *workload;
    const char *from, *to;
    bool json, all;
};

static int parse_compare(struct cli *cli, struct compare *c, int argc, char **argv)
{
    static const struct option options[] = {{"json", no_argument, NULL, 'j'}, {"all", no_argument, NULL, 'a'}, {"workload", required_argument, NULL, 'w'},
                                            CLI_COMMON_LONG, {NULL, 0, NULL, 0}};
    int opt, r;

    while ((opt = getopt_long(argc, argv, ":hv", options, NULL)) != -1) {
        switch (opt) {
        case 'j': c->json = true; break;
        case 'a': c->all = true; break;
        case 'w': cli_add_word(&c->workload, optarg); break;
        default:
            r = cli_common_option(cli, opt, argv);
            if (r >= 0)
                return r;
        }
    }
    if (argc - optind != 2)
        return cli_usage(cli, "two domains are needed, FROM and TO");
    c->from = argv[optind];
    c->to = argv[optind + 1];
    if (!strcmp(c->from, c->to))
        return cli_usage(cli, "FROM and TO are both %s", c->from);
    return -1;
}

static void print_os(const char *domain, const struct molt_json *os)
{
    printf("%-16s %s, kernel %s, libc %s\n", domain, text_of(os, "release", text_of(os, "pretty", "?")), text_of(os, "kernel", "?"), text_of(os, "libc", "?"));
}

static void print_packages(const struct molt_json *p, bool all)
{
    const struct molt_json *list = molt_json_get(p, "list");

    printf("packages: %s; %" PRId64 " equal, %" PRId64 " newer, %" PRId64 " older, %" PRId64 " gone, %" PRId64 " added\n", text_of(p, "level", "?"), molt_json_get_int(p, "equal", 0),
           molt_json_get_int(p, "newer", 0), molt_json_get_int(p, "older", 0), molt_json_get_int(p, "gone", 0), molt_json_get_int(p, "added", 0));
    for (size_t i = 0; all && i < molt_json_size(list); i++) {
        const struct molt_json *o = molt_json_at(list, i);

        printf("    %-6s %-40s %s -> %s\n", text_of(o, "order", "?"), text_of(o, "package", "?"), text_of(o, "from", "-"), text_of(o, "to", "-"));
    }
}

static void print_verdict(const struct molt_json *u, bool all)
{
    static const char *const words[][2] = {{"move", "moves as it is"}, {"move-overlay", "moves, with an overlay of old files"}, {"restart", "restart it there: it cannot move"}, {"refuse", "cannot move"}};
    const struct molt_json *reasons = molt_json_get(u, "reasons"), *files = molt_json_get(u, "files");
    const char *verdict = text_of(u, "verdict", "?"), *said = verdict;

    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
        if (!strcmp(verdict, words[i][0]))
            said = words[i][1];
    printf("%s: %s (%" PRId64 " files the same, %" PRId64 " different, %" PRId64 " missing)\n", text_of(u, "unit", "?"), said, molt_json_get_int(u, "same", 0),
           molt_json_get_int(u, "different", 0), molt_json_get_int(u, "missing", 0));
    for (size_t i = 0; i < molt_json_size(reasons); i++)
        printf("    %s; %s\n", text_of(molt_json_at(reasons, i), "detail", "?"), text_of(molt_json_at(reasons, i), "remedy", ""));
    for (size_t i = 0; all && i < molt_json_size(files); i++) {
        const struct molt_json *f = molt_json_at(files, i);

        printf("    %-9s %s (%s)\n", text_of(f, "here", "?"), text_of(f, "path", "?"), text_of(f, "package", "no package"));
    }
}

int cli_app_compare(struct cli *cli, int argc, char **argv)
{
    CLEANUP_JSON struct molt_json *v = NULL;
    CLEANUP_FREE char *text = NULL;
    struct compare c = {0};
    xenmolt_error *err = NULL;
    xenmolt *x = NULL;
    int r = parse_compare(cli, &c, argc, argv);

    if (r < 0 && (r = cli_open(cli, &x)) == 0) {
        r = xenmolt_app_compare(x, c.from, c.to, c.workload, &text, &err);
        xenmolt_close(x);
        if (r == 0 && molt_json_parse(text, strlen(text), &v, NULL) == 0 && c.json)
            cli_print_json(v, true);
        if (v && !c.json) {
            const struct molt_json *units = molt_json_get(v, "units");

            print_os(c.from, molt_json_get(v, "os_from"));
            print_os(c.to, molt_json_get(v, "os_to"));
            print_packages(molt_json_get(v, "packages"), c.all);
            for (size_t i = 0; i < molt_json_size(units); i++)
                print_verdict(molt_json_at(units, i), c.all);
        }
        r = cli_result(cli, r, err);
    }
    free(c.workload);
    return r;
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
