/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Recipes: scripts that upgrade a guest. See xenmolt-recipe(7). */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/fsio.h"
#include "base/strbuf.h"
#include "upgrade.h"

#define HEADER_BYTES 4096
#define MAX_TIMEOUT_S (24 * 3600)
#define MAX_SPACE_MB (1024 * 1024)
#define MARK "# xenmolt-recipe: "

static int64_t bounded(const char *text, int64_t max)
{
    long long v = atoll(text);
    return v < 1 ? 1 : v > max ? max : v;
}

/* "# xenmolt-recipe: key=value" lines in the first bytes; all optional. */
static void read_header(const char *text, struct molt_json *params)
{
    for (const char *p = text; (p = strstr(p, MARK)); p++) {
        char key[32] = "", value[160] = "";
        if (sscanf(p + strlen(MARK), "%31[a-z_] = %159[^\n]", key, value) != 2 && sscanf(p + strlen(MARK), "%31[a-z_]=%159[^\n]", key, value) != 2)
            continue;
        if (!strcmp(key, "timeout_s"))
            molt_json_set_int(params, "recipe_timeout_s", bounded(value, MAX_TIMEOUT_S));
        else if (!strcmp(key, "space_mb"))
            molt_json_set_int(params, "recipe_space_mb", bounded(value, MAX_SPACE_MB));
        else if (!strcmp(key, "argument") && !molt_json_get_string(params, "recipe_arg"))
            molt_json_set_bool(params, "recipe_wants_arg", !strcmp(value, "required"));
    }
}

int molt_recipe_find(const char *name, struct molt_json *params, struct molt_error **err)
{
    CLEANUP_FREE char *path = strchr(name, '/') ? molt_xstrdup(name) : molt_xasprintf("%s/recipes/%s", MOLT_PKGDATADIR, name);
    CLEANUP_FREE char *in_cwd = !strchr(name, '/') && access(path, R_OK) < 0 ? molt_xasprintf("./%s", name) : NULL;
    const char *use = in_cwd && access(in_cwd, R_OK) == 0 ? in_cwd : path;
    struct stat st;
    char head[HEADER_BYTES + 1] = "";
    CLEANUP_CLOSE int fd = open(use, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
        return molt_error_set(err, MOLT_E_USAGE, "recipe %s: no such recipe or file (shipped ones are in %s/recipes)", name, MOLT_PKGDATADIR);
    if (!(st.st_mode & 0111))
        return molt_error_set(err, MOLT_E_USAGE, "recipe %s is not executable; chmod +x it", use);
    ssize_t n = read(fd, head, HEADER_BYTES);
    if (n < 4 || (memcmp(head, "#!", 2) != 0 && memcmp(head, "\177ELF", 4) != 0))
        return molt_error_set(err, MOLT_E_USAGE, "recipe %s is neither a script (#!) nor a program", use);
    read_header(head, params);
    if (molt_json_get_bool(params, "recipe_wants_arg", false))
        return molt_error_set(err, MOLT_E_USAGE, "recipe %s needs an argument (--to SUITE)", name);
    CLEANUP_FREE char *full = realpath(use, NULL);
    molt_json_set_string(params, "recipe", full);
    molt_json_set_string(params, "recipe_name", name);
    return 0;
}
