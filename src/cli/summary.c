/* SPDX-License-Identifier: GPL-2.0-or-later */
/* JSON results for people. Every member may be missing: what is not there is not said. */
#include "cli/cli.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"

static bool ends_with(const char *s, const char *end)
{
    size_t n = strlen(s), m = strlen(end);

    return n >= m && !strcmp(s + n - m, end);
}

static void add_bytes(struct molt_strbuf *out, double n)
{
    static const char *const units[] = {"bytes", "KiB", "MiB", "GiB", "TiB"};
    unsigned u = 0;

    for (; n >= 1024 && u < 4; u++)
        n /= 1024;
    molt_strbuf_addf(out, u && n < 100 ? "%.1f %s" : "%.0f %s", n, units[u]);
}

static void add_ms(struct molt_strbuf *out, double ms)
{
    if (ms < 1000)
        molt_strbuf_addf(out, "%.0f ms", ms);
    else
        molt_strbuf_addf(out, "%.1f s", ms / 1000);
}

void cli_format_value(const char *key, const struct molt_json *v, struct molt_strbuf *out)
{
    enum molt_json_type t = molt_json_type(v);

    if ((t == MOLT_JSON_INT || t == MOLT_JSON_DOUBLE)) {
        double n = t == MOLT_JSON_INT ? (double)molt_json_intval(v, 0) : 0;

        if (t == MOLT_JSON_DOUBLE) {
            CLEANUP_FREE char *text = molt_json_print(v, false);
            n = strtod(text, NULL);
        }
        if (ends_with(key, "bytes"))
            add_bytes(out, n);
        else if (ends_with(key, "_ms"))
            add_ms(out, n);
        else if (ends_with(key, "_s"))
            molt_strbuf_addf(out, "%.0f s", n);
        else
            molt_strbuf_addf(out, "%g", n);
    } else if (t == MOLT_JSON_STRING) {
        molt_strbuf_addf(out, "%s", molt_json_str(v));
    } else {
        CLEANUP_FREE char *text = molt_json_print(v, false);
        molt_strbuf_addf(out, "%s", text);
    }
}

/* "blackout_ms" -> "blackout" */
static void print_key(const char *key)
{
    static const char *const units[] = {"_ms", "_s", "_bytes"};
    size_t n = strlen(key);

    for (unsigned i = 0; i < 3; i++) {
        if (ends_with(key, units[i])) {
            n -= strlen(units[i]);
            break;
        }
    }
    for (size_t i = 0; i < n; i++)
        putchar(key[i] == '_' ? ' ' : key[i]);
}

/* What becomes of each disk; nothing before that is known. */
static void print_disks(const struct molt_json *disks)
{
    for (size_t i = 0; i < molt_json_size(disks); i++) {
        const struct molt_json *d = molt_json_at(disks, i), *dirs = molt_json_get(d, "dirs");

        printf("%sdisk %s: %s", i ? "" : "\n", molt_json_get_string(d, "vdev"), dirs ? "handed over" : "merged");
        for (size_t k = 0; k < molt_json_size(dirs); k++)
            printf("%s%s%s", k ? ", " : " (", molt_json_str(molt_json_at(dirs, k)), k + 1 == molt_json_size(dirs) ? ")" : "");
        putchar('\n');
    }
}

void cli_print_preflight(const struct molt_json *pre)
{
    const struct molt_json *checks = molt_json_get(pre, "checks"), *est = molt_json_get(pre, "estimate");

    for (size_t i = 0; i < molt_json_size(checks); i++) {
        const struct molt_json *c = molt_json_at(checks, i);
        const char *name = molt_json_get_string(c, "name"), *detail = molt_json_get_string(c, "detail");
        const char *remedy = molt_json_get_string(c, "remedy");
        bool ok = molt_json_get_bool(c, "ok", false);

        printf("%-4s  %s%s%s\n", ok ? "ok" : "FAIL", name ? name : "?", detail && *detail ? ": " : "",
               detail ? detail : "");
        if (!ok && remedy && *remedy)
            printf("      remedy: %s\n", remedy);
    }
    print_disks(molt_json_get(pre, "disks"));
    if (molt_json_size(est))
        printf("\nestimate:\n");
    for (size_t i = 0; i < molt_json_size(est); i++) {
        CLEANUP_STRBUF struct molt_strbuf b = MOLT_STRBUF_INIT;
        const char *key = molt_json_key_at(est, i);

        cli_format_value(key, molt_json_at(est, i), &b);
        printf("  ");
        print_key(key);
        printf(": %s\n", molt_strbuf_str(&b));
    }
}

static void print_change(const struct molt_json *before, const struct molt_json *after, const char *key,
                         const char *label)
{
    const char *a = molt_json_get_string(before, key), *b = molt_json_get_string(after, key);

    if (a && b && strcmp(a, b) != 0)
        printf("  %-10s %s -> %s\n", label, a, b);
    else if (a || b)
        printf("  %-10s %s%s\n", label, b ? b : a, a && b ? " (unchanged)" : "");
}

static void print_blackout(const struct molt_json *r)
{
    CLEANUP_STRBUF struct molt_strbuf b = MOLT_STRBUF_INIT;

    if (!molt_json_get(r, "blackout_ms"))
        return;
    cli_format_value("blackout_ms", molt_json_get(r, "blackout_ms"), &b);
    if (molt_json_get(r, "snapshot_pause_ms")) {
        molt_strbuf_addf(&b, " (pause for the snapshot: ");
        cli_format_value("snapshot_pause_ms", molt_json_get(r, "snapshot_pause_ms"), &b);
        molt_strbuf_addf(&b, ")");
    }
    printf("  %-10s %s\n", "blackout", molt_strbuf_str(&b));
}

static void print_process(const struct molt_json *p)
{
    CLEANUP_STRBUF struct molt_strbuf b = MOLT_STRBUF_INIT;
    const struct molt_json *conns = molt_json_get(p, "connections");

    if (!molt_json_size(p))
        return;
    if (molt_json_get(p, "unit"))
        molt_strbuf_addf(&b, "%s, ", molt_json_get_string(p, "unit"));
    if (molt_json_get(p, "pid"))
        molt_strbuf_addf(&b, "PID %" PRId64 " as before", molt_json_get_int(p, "pid", 0));
    if (molt_json_get(p, "threads"))
        molt_strbuf_addf(&b, ", %" PRId64 " threads", molt_json_get_int(p, "threads", 0));
    if (molt_json_get(p, "memory_bytes")) {
        molt_strbuf_addf(&b, ", ");
        cli_format_value("memory_bytes", molt_json_get(p, "memory_bytes"), &b);
    }
    if (conns) {
        int64_t n = molt_json_type(conns) == MOLT_JSON_ARRAY ? (int64_t)molt_json_size(conns)
                                                             : molt_json_intval(conns, 0);
        molt_strbuf_addf(&b, ", %" PRId64 " connections kept", n);
    }
    printf("  %-10s %s\n", "process", molt_strbuf_str(&b));
    if (molt_json_size(molt_json_get(p, "pins")))
        printf("  %-10s %zu of the old system's, until the service restarts\n", "files",
               molt_json_size(molt_json_get(p, "pins")));
}

static void print_merge(const struct molt_json *m)
{
    const struct molt_json *conflicts = molt_json_get(m, "conflicts");

    if (!molt_json_size(m))
        return;
    printf("  %-10s %" PRId64 " changed by the guest, %" PRId64 " by the upgrade, %" PRId64
           " by both alike; ",
           "merge", molt_json_get_int(m, "active_only", 0), molt_json_get_int(m, "upgrade_only", 0),
           molt_json_get_int(m, "both_same", 0));
    if (!molt_json_size(conflicts)) {
        printf("no conflicts\n");
        return;
    }
    printf("%zu conflicts\n", molt_json_size(conflicts));
    if (molt_json_size(molt_json_get(m, "unused_decisions")))
        printf("    %zu decisions of the resolve file met no conflict\n", molt_json_size(molt_json_get(m, "unused_decisions")));
    for (size_t i = 0; i < molt_json_size(conflicts); i++) {
        const struct molt_json *c = molt_json_at(conflicts, i);
        const char *path = molt_json_get_string(c, "path"), *cls = molt_json_get_string(c, "class");
        const char *decision = molt_json_get_string(c, "decision");

        printf("    %s (%s): %s\n", path ? path : "?", cls ? cls : "?", decision ? decision : "?");
    }
}

void cli_print_summary(const struct molt_json *r)
{
    const struct molt_json *before = molt_json_get(r, "os_before"), *after = molt_json_get(r, "os_after");
    const struct molt_json *retained = molt_json_get(r, "retained");
    const char *id = molt_json_get_string(r, "operation"), *domain = molt_json_get_string(r, "domain");
    const char *result = molt_json_get_string(r, "result");

    printf("\n%s: %s\n", domain ? domain : "domain", result ? result : "upgraded");
    print_change(before, after, "release", "system");
    print_change(before, after, "kernel", "kernel");
    print_change(before, after, "libc", "libc");
    print_change(before, after, "jdk", "jdk");
    print_blackout(r);
    for (size_t i = 0; i < molt_json_size(molt_json_get(r, "processes")); i++)
        print_process(molt_json_at(molt_json_get(r, "processes"), i));
    print_merge(molt_json_get(r, "merge"));
    for (size_t i = 0; i < molt_json_size(retained); i++) {
        CLEANUP_STRBUF struct molt_strbuf b = MOLT_STRBUF_INIT;

        cli_format_value("", molt_json_at(retained, i), &b);
        printf("  %-10s %s\n", i ? "" : "retained", molt_strbuf_str(&b));
    }
    if (id && molt_json_size(retained))
        printf("  to delete what is retained:  xenmolt op-commit %s\n"
               "  to go back to the old guest: xenmolt op-rollback --discard-new-writes %s\n",
               id, id);
}
