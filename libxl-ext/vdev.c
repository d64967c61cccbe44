/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Names of virtual disks: what the guest sees, and which are free. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/strbuf.h"
#include "disk.h"

/* The prefixes of xen-vbd-interface(7) and where xen-blkfront (xlvbd_alloc_gendisk of Linux) puts their disks. */
static const struct {
    const char *prefix;
    int offset, max;
} kinds[] = {{"xvd", 0, 26}, {"hd", 0, 4}, {"sd", 4, 16}};

/* "xvda1" -> 0, 1 (0: the whole disk). */
static bool split(const char *vdev, int *ret_disk, int *ret_part)
{
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        size_t n = strlen(kinds[i].prefix);
        if (strncmp(vdev, kinds[i].prefix, n) != 0 || vdev[n] < 'a' || vdev[n] - 'a' >= kinds[i].max)
            continue;
        const char *digits = vdev + n + 1;
        size_t len = strspn(digits, "0123456789");
        if (digits[len] || len > 3 || digits[0] == '0')
            return false;
        *ret_disk = vdev[n] - 'a' + kinds[i].offset;
        *ret_part = atoi(digits);
        return true;
    }
    return false;
}

bool molt_vdev_guest_name(const char *vdev, char *ret, size_t size)
{
    int disk, part;
    if (!split(vdev, &disk, &part))
        return false;
    snprintf(ret, size, part ? "xvd%c%d" : "xvd%c", 'a' + disk, part);
    return true;
}

static bool used(const char *vdev, int letter)
{
    int disk, part;
    return vdev && split(vdev, &disk, &part) && disk == letter;
}

bool molt_vdev_free(const libxl_domain_config *cfg, const char (*taken)[16], size_t n, const char *like, char ret[16])
{
    int disk, part;
    if (!split(like, &disk, &part))
        return false;
    for (int c = 'y' - 'a'; c > 0; c--) {
        bool busy = false;
        for (int i = 0; i < cfg->num_disks && !busy; i++)
            busy = used(cfg->disks[i].vdev, c);
        for (size_t i = 0; i < n && !busy; i++)
            busy = used(taken[i], c);
        if (busy)
            continue;
        snprintf(ret, 16, part ? "xvd%c%d" : "xvd%c", 'a' + c, part);
        return true;
    }
    return false;
}
