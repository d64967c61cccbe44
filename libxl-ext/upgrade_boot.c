/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The initrd for the clone's last boot: our rdinit in front of the guest's own archive, which dom0 does not look into. The
 * kernel unpacks archives one after the other, an uncompressed one first (as microcode comes:
 * Documentation/driver-api/early-userspace/buffer-format.rst).
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/strbuf.h"
#include "upgrade.h"

#define RDINIT MOLT_PKGLIBEXECDIR "/rdinit.cpio"

static int append(int out, const char *path, struct molt_error **err)
{
    CLEANUP_CLOSE int in = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = in < 0 ? -1 : 1;
    while (n > 0)
        n = sendfile(out, in, NULL, 1u << 20);
    return n < 0 ? molt_error_errno(err, "copy %s", path) : 0;
}

int up_boot_initrd(const char *initrd, const char *path, struct molt_error **err)
{
    if (access(RDINIT, R_OK) < 0)
        return 0;
    CLEANUP_CLOSE int out = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    int r = out < 0 ? molt_error_errno(err, "create %s", path) : append(out, RDINIT, err);
    if (r == 0)
        r = append(out, initrd, err);
    return r < 0 ? r : 1;
}
