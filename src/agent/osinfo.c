/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>

#include "agent/agent.h"
#include "base/cleanup.h"
#include "base/fsio.h"
#include "base/strbuf.h"
#include "base/subprocess.h"

static char *os_release(const char *text, const char *key)
{
    size_t n = strlen(key);
    for (const char *p = text; p && *p; p = strchr(p, '\n') ? strchr(p, '\n') + 1 : NULL)
        if (!strncmp(p, key, n) && p[n] == '=') {
            const char *v = p + n + 1;
            size_t len = strcspn(v, "\n");
            if (len >= 2 && *v == '"')
                return molt_xstrndup(v + 1, len - 2);
            return molt_xstrndup(v, len);
        }
    return NULL;
}

/* First line of a program's output, NULL when it fails or prints nothing. */
static char *first_line(char *const argv[])
{
    CLEANUP_FREE char *out = NULL;
    struct molt_run_opts o = {.timeout_ms = 60000};
    if (molt_run_ok(argv, &o, &out, NULL) < 0 || !out[0])
        return NULL;
    return molt_xstrndup(out, strcspn(out, "\n"));
}

static void set_owned(struct molt_json *v, const char *key, char *s)
{
    if (s)
        molt_json_set_string(v, key, s);
    free(s);
}

static char *package_version(const char *pattern)
{
    char *argv[] = {"dpkg-query", "-W", "-f", "${db:Status-Status} ${Version}\n", (char *)pattern, NULL};
    CLEANUP_FREE char *out = NULL;
    struct molt_run_opts o = {.timeout_ms = 60000};
    if (molt_run_ok(argv, &o, &out, NULL) < 0)
        return NULL;
    /* A pattern also finds packages that others only name: "not-installed ". */
    for (const char *p = out; p; p = strchr(p, '\n') ? strchr(p, '\n') + 1 : NULL)
        if (!strncmp(p, "installed ", strlen("installed "))) {
            p += strlen("installed ");
            return molt_xstrndup(p, strcspn(p, "\n"));
        }
    return NULL;
}

struct molt_json *agent_os_info(void)
{
    struct molt_json *v = molt_json_object();
    CLEANUP_FREE char *rel = NULL;
    if (molt_read_file("/etc/os-release", 65536, &rel, NULL, NULL) == 0) {
        set_owned(v, "id", os_release(rel, "ID"));
        set_owned(v, "version", os_release(rel, "VERSION_ID"));
        set_owned(v, "release", os_release(rel, "PRETTY_NAME"));
        set_owned(v, "codename", os_release(rel, "VERSION_CODENAME"));
    }
    CLEANUP_FREE char *point = NULL;
    if (molt_read_file("/etc/debian_version", 128, &point, NULL, NULL) == 0) {
        point[strcspn(point, "\n")] = 0;
        molt_json_set_string(v, "debian_version", point);
    }
    struct utsname u;
    if (uname(&u) == 0) {
        molt_json_set_string(v, "kernel", u.release);
        molt_json_set_string(v, "kernel_build", u.version);
    }
    char *libc = package_version("libc6");
    if (!libc) {
        char *argv[] = {"getconf", "GNU_LIBC_VERSION", NULL};
        libc = first_line(argv);
    }
    set_owned(v, "libc", libc);
    set_owned(v, "jdk", package_version("openjdk-*-jre-headless"));
    return v;
}
