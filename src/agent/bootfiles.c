/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Hands the newest kernel and its initial RAM disk to the host, which starts direct-boot guests with them. One request
 * tells the names and sizes, then `boot-files {"get": "kernel"|"initrd"}` streams one of them.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "agent/agent.h"
#include "base/cleanup.h"
#include "base/strbuf.h"

/* Newest by version among BOOT/vmlinuz-*; malloc'd version or NULL. */
static char *newest_kernel(const char *boot)
{
    CLEANUP_CLOSEDIR DIR *d = opendir(boot);
    char *best = NULL;
    struct dirent *e;
    while (d && (e = readdir(d))) {
        if (strncmp(e->d_name, "vmlinuz-", 8) != 0 || strstr(e->d_name, ".dpkg-"))
            continue;
        if (!best || strverscmp(e->d_name + 8, best) > 0) {
            free(best);
            best = molt_xstrdup(e->d_name + 8);
        }
    }
    return best;
}

static char *initrd_of(const char *version)
{
    static const char *const forms[] = {"/boot/initrd.img-%s", "/boot/initramfs-%s.img", "/boot/initrd-%s"};
    for (size_t i = 0; i < 3; i++) {
        struct molt_strbuf b = MOLT_STRBUF_INIT;
        const char *pct = strstr(forms[i], "%s");
        molt_strbuf_add(&b, forms[i], (size_t)(pct - forms[i]));
        molt_strbuf_addf(&b, "%s%s", version, pct + 2);
        char *path = molt_strbuf_steal(&b);
        if (access(path, R_OK) == 0)
            return path;
        free(path);
    }
    return NULL;
}

static int stream(struct molt_request *rq, const char *path, struct molt_error **err)
{
    CLEANUP_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return molt_error_errno(err, "open %s", path);
    return molt_request_fd(rq, fd, err);
}

int h_boot_files(struct molt_request *rq, struct molt_json *reply, struct molt_error **err)
{
    CLEANUP_FREE char *version = newest_kernel("/boot");
    if (!version)
        return molt_error_set(err, MOLT_E_UNSUPPORTED, "the guest has no /boot/vmlinuz-* to boot from");
    CLEANUP_FREE char *kernel = molt_xasprintf("/boot/vmlinuz-%s", version);
    CLEANUP_FREE char *initrd = initrd_of(version);
    const char *get = molt_json_get_string(rq->args, "get");
    struct stat st;
    molt_json_set_string(reply, "version", version);
    if (stat(kernel, &st) == 0)
        molt_json_set_int(reply, "kernel_bytes", st.st_size);
    if (initrd && stat(initrd, &st) == 0)
        molt_json_set_int(reply, "initrd_bytes", st.st_size);
    if (molt_streq(get, "kernel"))
        return stream(rq, kernel, err);
    if (molt_streq(get, "initrd"))
        return initrd ? stream(rq, initrd, err) : molt_error_set(err, MOLT_E_UNSUPPORTED, "no initial RAM disk for kernel %s", version);
    return 0;
}
