/* SPDX-License-Identifier: GPL-2.0-or-later */
/* xenmolt delta-merge: the merge of an upgrade that waits. What is printed of the guest's was made harmless by the library. */
#include "cli/cli.h"

#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"

struct delta {
    const char *target, *resolve_file;
    bool dry_run, json;
};

/* -1: go on; else the exit status. */
static int parse(struct cli *cli, struct delta *d, int argc, char **argv)
{
    static const struct option options[] = {
        {"dry-run", no_argument, NULL, 'n'},
        {"resolve", required_argument, NULL, 'r'},
        {"json", no_argument, NULL, 'j'},
        CLI_COMMON_LONG,
        {NULL, 0, NULL, 0},
    };
    int opt, r;

    while ((opt = getopt_long(argc, argv, ":hvnN", options, NULL)) != -1) {
        switch (opt) {
        case 'n':
        case 'N': d->dry_run = true; break;
        case 'r': d->resolve_file = optarg; break;
        case 'j': d->json = true; break;
        default:
            r = cli_common_option(cli, opt, argv);
            if (r >= 0)
                return r;
        }
    }
    if (d->dry_run && d->resolve_file)
        return cli_usage(cli, "-n changes nothing, --resolve gives decisions: one of them");
    d->target = cli_one_argument(cli, argc, argv, "DOMAIN");
    return d->target ? -1 : CLI_STATUS_USAGE;
}

static const char *text_of(const struct molt_json *v, const char *key)
{
    const char *s = molt_json_get_string(v, key);

    return s ? s : "?";
}

static void print_side(const char *name, const struct molt_json *side)
{
    const char *target = molt_json_get_string(side, "target");

    if (molt_json_type(side) != MOLT_JSON_OBJECT) {
        printf("      %-8s not there\n", name);
        return;
    }
    printf("      %-8s %s", name, text_of(side, "type"));
    if (target)
        printf(" to %s", target);
    if (molt_streq(text_of(side, "type"), "file"))
        printf(", %" PRId64 " bytes", molt_json_get_int(side, "size", 0));
    printf(", mode %s, owner %" PRId64 ":%" PRId64 ", %s\n", text_of(side, "mode"), molt_json_get_int(side, "uid", -1),
           molt_json_get_int(side, "gid", -1), text_of(side, "mtime"));
}

static void print_diff(const char *diff)
{
    while (*diff) {
        size_t n = strcspn(diff, "\n");

        printf("        %.*s\n", (int)n, diff);
        diff += n + (diff[n] == '\n');
    }
}

static void print_conflict(const struct molt_json *c)
{
    const char *package = molt_json_get_string(c, "package"), *diff = molt_json_get_string(c, "diff");

    printf("    %s: %s (%s)", text_of(c, "path"), text_of(c, "kind"), text_of(c, "class"));
    if (package)
        printf(", %s %s", molt_json_get_bool(c, "conffile", false) ? "conffile of" : "of package", package);
    if (molt_json_get_bool(c, "open", false))
        printf(": OPEN\n");
    else
        printf(": %s, %s\n", text_of(c, "decision"), text_of(c, "reason"));
    print_side("active", molt_json_get(c, "active"));
    print_side("upgrade", molt_json_get(c, "upgrade"));
    if (diff)
        print_diff(diff);
    else if (molt_json_get_string(c, "no_diff"))
        printf("      no diff: %s\n", text_of(c, "no_diff"));
}

static void print_unused(const struct molt_json *list)
{
    for (size_t i = 0; i < molt_json_size(list); i++) {
        const struct molt_json *u = molt_json_at(list, i);

        printf("  not used   line %" PRId64 ": %s %s: no conflict there\n", molt_json_get_int(u, "line", 0), text_of(u, "action"),
               text_of(u, "path"));
    }
}

static void print_plan(const struct molt_json *v)
{
    const struct molt_json *p = molt_json_get(v, "plan"), *acts = molt_json_get(p, "actions");
    const struct molt_json *conflicts = molt_json_get(p, "conflicts");
    const char *template = molt_json_get_string(v, "resolve_template");
    CLEANUP_STRBUF struct molt_strbuf bytes = MOLT_STRBUF_INIT;

    printf("  changed    %" PRId64 " paths by the guest, %" PRId64 " by the upgrade, %" PRId64 " by both alike\n",
           molt_json_get_int(p, "active_only", 0), molt_json_get_int(p, "upgrade_only", 0), molt_json_get_int(p, "both_same", 0));
    printf("  actions   ");
    for (size_t i = 0; i < molt_json_size(acts); i++)
        printf("%s %s %" PRId64, i ? "," : "", molt_json_key_at(acts, i), molt_json_intval(molt_json_at(acts, i), 0));
    printf("%s\n", molt_json_size(acts) ? "" : " none");
    cli_format_value("bytes", molt_json_get(p, "bytes_to_move"), &bytes);
    printf("  to move    at most %s\n", molt_strbuf_str(&bytes));
    printf("  conflicts  %" PRId64 " open, %zu listed, %zu settled by the policy\n", molt_json_get_int(p, "conflicts_open", 0),
           molt_json_size(conflicts), molt_json_size(molt_json_get(p, "settled")));
    for (size_t i = 0; i < molt_json_size(conflicts); i++)
        print_conflict(molt_json_at(conflicts, i));
    if (molt_json_get_int(p, "conflicts_omitted", 0))
        printf("    ... and %" PRId64 " more\n", molt_json_get_int(p, "conflicts_omitted", 0));
    print_unused(molt_json_get(p, "unused_decisions"));
    if (template)
        printf("  to decide  edit %s, then: xenmolt delta-merge --resolve %s %s\n", template, template, text_of(v, "domain"));
}

static void print_pass(const struct molt_json *p)
{
    CLEANUP_STRBUF struct molt_strbuf b = MOLT_STRBUF_INIT;

    cli_format_value("bytes", molt_json_get(p, "bytes"), &b);
    printf("  pass %" PRId64 "     %" PRId64 " actions, %s, ", molt_json_get_int(p, "number", 0), molt_json_get_int(p, "actions", 0),
           molt_strbuf_str(&b));
    b.len = 0;
    cli_format_value("x_ms", molt_json_get(p, "ms"), &b);
    printf("%s\n", molt_strbuf_str(&b));
}

int cli_delta_merge(struct cli *cli, int argc, char **argv)
{
    struct delta d = {.dry_run = cli->dry_run};
    CLEANUP_JSON struct molt_json *v = NULL;
    CLEANUP_FREE char *text = NULL;
    xenmolt_error *err = NULL;
    xenmolt *x = NULL;
    int r = parse(cli, &d, argc, argv);

    if (r >= 0)
        return r;
    if (d.resolve_file && (r = xenmolt_resolve_check(d.resolve_file, &err)) < 0)
        return cli_result(cli, r, err);
    r = cli_open(cli, &x);
    if (r)
        return r;
    r = xenmolt_delta_merge(x, d.target, d.dry_run, d.resolve_file, &text, &err);
    xenmolt_close(x);
    if (r == 0 && molt_json_parse(text, strlen(text), &v, &err) < 0)
        r = molt_error_code(err);
    if (r < 0)
        return cli_result(cli, r, err);
    if (d.json) {
        cli_print_json(v, true);
        return 0;
    }
    printf("%s (%s): %s until %s\n", text_of(v, "domain"), text_of(v, "operation"), text_of(v, "state"), text_of(v, "waits_until"));
    if (molt_json_get(v, "plan"))
        print_plan(v);
    if (molt_json_get(v, "pass"))
        print_pass(molt_json_get(v, "pass"));
    return 0;
}
