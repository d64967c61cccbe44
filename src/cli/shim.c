/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The xl shim. xl has no plug-in hook; so a small script takes the place of xl and runs the real one for all
 * but our subcommands. What it takes care of:
 *  - The real xl stays beside as xl.xenmolt-real, a hard link made before the script is renamed over
 *    xl: at no moment there is no xl, and removing renames it back, so it is the same inode again.
 *  - dpkg is told (dpkg-divert), so that an update of the Xen tools lands in xl.xenmolt-real.
 *  - Debian's xl is a link to a script that finds the tool by its own name. So the real xl is run by the
 *    name of "xl", through a link in a directory of ours.
 */
#include "cli/cli.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fsio.h"
#include "base/subprocess.h"

#define MARK "# xenmolt's shim for xl; removed by: xenmolt shim-remove"
#define SHIM_MAX (64 << 10)

struct shim {
    const char *xl, *lib_dir, *xenmolt;
    bool divert;
    char *real, *link; /* XL.xenmolt-real; LIB_DIR/xl */
    char self[PATH_MAX];
};

static const char *env_or(const char *name, const char *dflt)
{
    const char *v = getenv(name);

    return v && v[0] ? v : dflt;
}

static bool dpkg_knows(const char *path)
{
    char *const argv[] = {"dpkg-divert", "--version", NULL};
    int status = 1;

    /* Below /usr/local and elsewhere dpkg has no say. */
    if ((strncmp(path, "/usr/", 5) && strncmp(path, "/sbin/", 6) && strncmp(path, "/bin/", 5)) ||
        !strncmp(path, "/usr/local/", 11))
        return false;
    return molt_run(argv, &(struct molt_run_opts){.timeout_ms = 30000}, &status, NULL, NULL) == 0 &&
           status == 0;
}

/* -1: go on; else the exit status. */
static int parse(struct cli *cli, struct shim *s, int argc, char **argv)
{
    static const struct option options[] = {
        {"xl", required_argument, NULL, 'x'},
        {"lib-dir", required_argument, NULL, 'l'},
        {"xenmolt", required_argument, NULL, 'm'},
        {"divert", no_argument, NULL, 'd'},
        {"no-divert", no_argument, NULL, 'n'},
        CLI_COMMON_LONG,
        {NULL, 0, NULL, 0},
    };
    ssize_t n = readlink("/proc/self/exe", s->self, sizeof(s->self) - 1);
    int divert = -1; /* as fits the path */
    int opt, r;

    s->self[n > 0 ? n : 0] = '\0';
    s->xl = env_or("XENMOLT_XL", "/usr/sbin/xl");
    s->lib_dir = env_or("XENMOLT_SHIM_DIR", "/usr/lib/xenmolt/shim");
    s->xenmolt = s->self;
    while ((opt = getopt_long(argc, argv, ":hv", options, NULL)) != -1) {
        switch (opt) {
        case 'x': s->xl = optarg; break;
        case 'l': s->lib_dir = optarg; break;
        case 'm': s->xenmolt = optarg; break;
        case 'd': divert = 1; break;
        case 'n': divert = 0; break;
        default:
            r = cli_common_option(cli, opt, argv);
            if (r >= 0)
                return r;
        }
    }
    if (optind < argc)
        return cli_usage(cli, "takes no argument, but there is %s", argv[optind]);
    if (s->xl[0] != '/' || s->lib_dir[0] != '/' || s->xenmolt[0] != '/')
        return cli_usage(cli, "paths must be absolute");
    s->divert = divert < 0 ? dpkg_knows(s->xl) : divert;
    s->real = molt_xasprintf("%s.xenmolt-real", s->xl);
    s->link = molt_xasprintf("%s/xl", s->lib_dir);
    return -1;
}

static void shim_clear(struct shim *s)
{
    free(s->real);
    free(s->link);
}

static bool is_shim(const char *path)
{
    CLEANUP_FREE char *text = NULL;
    struct stat st;

    return lstat(path, &st) == 0 && S_ISREG(st.st_mode) &&
           molt_read_file(path, SHIM_MAX, &text, NULL, NULL) == 0 && strstr(text, MARK);
}

static int divert(const struct shim *s, const char *what, struct molt_error **err)
{
    char *const argv[] = {"dpkg-divert", "--quiet",    "--local",     "--no-rename", "--divert",
                          s->real,       (char *)what, (char *)s->xl, NULL};

    return s->divert ? molt_run_ok(argv, &(struct molt_run_opts){.timeout_ms = 60000}, NULL, err) : 0;
}

/* 'text' in quotes for sh. */
static void quote(struct molt_strbuf *b, const char *text)
{
    molt_strbuf_addf(b, "'");
    for (; *text; text++) {
        if (*text == '\'')
            molt_strbuf_addf(b, "'\\''");
        else
            molt_strbuf_addf(b, "%c", *text);
    }
    molt_strbuf_addf(b, "'");
}

static char *script(const struct shim *s)
{
    struct molt_strbuf b = MOLT_STRBUF_INIT;
    const char *sep = "";

    molt_strbuf_addf(&b, "#!/bin/sh\n%s\nxenmolt=", MARK);
    quote(&b, s->xenmolt);
    molt_strbuf_addf(&b, "\nreal=");
    quote(&b, s->link);
    /* The first word that is no option is the subcommand, as for xl itself. */
    molt_strbuf_addf(&b, "\nfor word do\n    case $word in\n    -*) continue ;;\n    ");
    for (const struct cli_command *c = cli_commands; c->name; c++) {
        if (c->shim) {
            molt_strbuf_addf(&b, "%s%s", sep, c->name);
            sep = "|";
        }
    }
    molt_strbuf_addf(&b, ") exec \"$xenmolt\" \"$@\" ;;\n    esac\n    break\ndone\nexec \"$real\" \"$@\"\n");
    return molt_strbuf_steal(&b);
}

static int make_link(const struct shim *s, struct molt_error **err)
{
    CLEANUP_FREE char *tmp = molt_xasprintf("%s.tmp", s->link);
    int r = molt_mkdir_p(s->lib_dir, 0755, err);

    if (r < 0)
        return r;
    unlink(tmp);
    if (symlink(s->real, tmp) < 0 || rename(tmp, s->link) < 0)
        return molt_error_errno(err, "link %s", s->link);
    return 0;
}

static int install(const struct shim *s, struct molt_error **err)
{
    CLEANUP_FREE char *text = script(s);
    bool again = is_shim(s->xl);
    struct stat st;
    int r;

    if (!again && lstat(s->xl, &st) < 0)
        return molt_error_errno(err, "%s", s->xl);
    if (!again && S_ISDIR(st.st_mode))
        return molt_error_set(err, MOLT_E_USAGE, "%s is a directory", s->xl);
    if (access(s->xenmolt, X_OK) < 0)
        return molt_error_errno(err, "%s", s->xenmolt);
    r = make_link(s, err);
    if (r < 0)
        return r;
    if (!again) {
        /* Left by an installation that was cut short: the xl in place is the newer one. */
        if (unlink(s->real) < 0 && errno != ENOENT)
            return molt_error_errno(err, "%s", s->real);
        if (linkat(AT_FDCWD, s->xl, AT_FDCWD, s->real, 0) < 0)
            return molt_error_errno(err, "link %s", s->real);
        r = divert(s, "--add", err);
        if (r < 0) {
            unlink(s->real);
            return r;
        }
    }
    return molt_write_file_atomic(s->xl, text, strlen(text), 0755, err);
}

static int uninstall(const struct shim *s, struct molt_error **err)
{
    struct stat st;

    if (is_shim(s->xl)) {
        if (lstat(s->real, &st) == 0) {
            if (rename(s->real, s->xl) < 0)
                return molt_error_errno(err, "rename %s", s->real);
        } else if (unlink(s->xl) < 0) { /* the Xen tools were removed meanwhile */
            return molt_error_errno(err, "remove %s", s->xl);
        }
    }
    unlink(s->link);
    rmdir(s->lib_dir); /* only when it is empty */
    return divert(s, "--remove", err);
}

static int finish(struct cli *cli, struct shim *s, int r, struct molt_error *err, const char *text)
{
    if (r == 0)
        printf("%s: %s\n", s->xl, text);
    shim_clear(s);
    return cli_result(cli, r, err);
}

int cli_shim_install(struct cli *cli, int argc, char **argv)
{
    struct shim s = {0};
    struct molt_error *err = NULL;
    int r = parse(cli, &s, argc, argv);

    if (r >= 0)
        return r;
    r = install(&s, &err);
    return finish(cli, &s, r, err, "hands our subcommands to xenmolt now");
}

int cli_shim_remove(struct cli *cli, int argc, char **argv)
{
    struct shim s = {0};
    struct molt_error *err = NULL;
    bool was;
    int r = parse(cli, &s, argc, argv);

    if (r >= 0)
        return r;
    was = is_shim(s.xl);
    r = uninstall(&s, &err);
    return finish(cli, &s, r, err, was ? "is the real one again" : "was no shim");
}
