/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The new domain as a file for `xl create` (xl.cfg(5)): the admin's own one still names the old disk and kernel, which
 * must not be started any more (its disk is the new one's backing file).
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/fsio.h"
#include "base/strbuf.h"
#include "upgrade.h"

/* A string in xl.cfg has no escapes: what holds a quote cannot be written. */
static void put(struct molt_strbuf *b, const char *key, const char *value)
{
    if (value && !strchr(value, '"'))
        molt_strbuf_addf(b, "%s = \"%s\"\n", key, value);
}

/* libxl would give a raw file to blkback. */
static bool raw_by_qemu(const libxl_device_disk *d)
{
    return d->format == LIBXL_DISK_FORMAT_RAW && d->backend == LIBXL_DISK_BACKEND_QDISK;
}

static void put_disks(struct molt_strbuf *b, const libxl_domain_config *cfg)
{
    molt_strbuf_addf(b, "disk = [");
    for (int i = 0, n = 0; i < cfg->num_disks; i++) {
        const libxl_device_disk *d = &cfg->disks[i];
        if (!d->pdev_path)
            continue;
        molt_strbuf_addf(b, "%s \"format=%s%s%s,vdev=%s,access=%s,target=%s\"", n++ ? "," : "", libxl_disk_format_to_string(d->format),
                         raw_by_qemu(d) ? ",backendtype=qdisk" : "", d->is_cdrom ? ",devtype=cdrom" : "", d->vdev, d->readwrite ? "rw" : "ro", d->pdev_path);
    }
    molt_strbuf_addf(b, " ]\n");
}

static void put_vifs(struct molt_strbuf *b, const libxl_domain_config *cfg)
{
    molt_strbuf_addf(b, "vif = [");
    for (int i = 0; i < cfg->num_nics; i++) {
        const libxl_device_nic *n = &cfg->nics[i];
        molt_strbuf_addf(b, "%s \"mac=" LIBXL_MAC_FMT ",bridge=%s\"", i ? "," : "", LIBXL_MAC_BYTES(n->mac), n->bridge ? n->bridge : "xenbr0");
    }
    molt_strbuf_addf(b, " ]\n");
}

char *molt_xlcfg_path(const struct xenmolt *x, const char *domain)
{
    return molt_xasprintf("%s/domains/%s.cfg", x->state_dir, domain);
}

int molt_xlcfg_write(const struct xenmolt *x, const char *domain, const char *op_id, const libxl_domain_config *cfg, struct molt_error **err)
{
    CLEANUP_STRBUF struct molt_strbuf b = MOLT_STRBUF_INIT;
    CLEANUP_FREE char *path = molt_xlcfg_path(x, domain);
    CLEANUP_FREE char *dir = molt_xasprintf("%s/domains", x->state_dir);
    molt_strbuf_addf(&b, "# Written by xenmolt, operation %s. Take over into the domain's own file what is yours there.\n", op_id);
    put(&b, "name", domain);
    molt_strbuf_addf(&b, "uuid = \"" LIBXL_UUID_FMT "\"\n", LIBXL_UUID_BYTES(cfg->c_info.uuid)); /* op-commit knows the domain by it */
    put(&b, "type", "pv");
    put(&b, "kernel", cfg->b_info.kernel);
    put(&b, "ramdisk", cfg->b_info.ramdisk);
    put(&b, "extra", cfg->b_info.cmdline);
    put(&b, "bootloader", cfg->b_info.bootloader);
    molt_strbuf_addf(&b, "memory = %llu\nmaxmem = %llu\nvcpus = %d\n", (unsigned long long)cfg->b_info.target_memkb / 1024,
                     (unsigned long long)cfg->b_info.max_memkb / 1024, cfg->b_info.max_vcpus);
    put_disks(&b, cfg);
    put_vifs(&b, cfg);
    put(&b, "on_poweroff", libxl_action_on_shutdown_to_string(cfg->on_poweroff));
    put(&b, "on_reboot", libxl_action_on_shutdown_to_string(cfg->on_reboot));
    put(&b, "on_crash", libxl_action_on_shutdown_to_string(cfg->on_crash));
    int r = molt_mkdir_p(dir, 0700, err);
    return r < 0 ? r : molt_write_file_atomic(path, b.s, b.len, 0600, err);
}

int molt_xlcfg_move_disk(const struct xenmolt *x, const char *domain, const char *from, const char *to, const char *format, bool by_qemu, struct molt_error **err)
{
    CLEANUP_FREE char *path = molt_xlcfg_path(x, domain), *text = NULL;
    CLEANUP_FREE char *target = molt_xasprintf("target=%s\"", from);
    CLEANUP_STRBUF struct molt_strbuf b = MOLT_STRBUF_INIT;
    if (!molt_exists(path))
        return 0;
    int r = molt_read_file(path, 1u << 20, &text, NULL, err);
    char *at = r < 0 ? NULL : strstr(text, target);
    if (!at)
        return r;
    /* put_disks writes "format=...,vdev=...,access=...,target=...". */
    char *begin = at;
    while (begin > text && *begin != '"')
        begin--;
    const char *vdev = strstr(begin, ",vdev=");
    if (vdev && vdev < at) {
        molt_strbuf_add(&b, text, (size_t)(begin - text));
        molt_strbuf_addf(&b, "\"format=%s", format);
        if (by_qemu && strcmp(format, "qcow2") != 0) /* libxl would give a raw file to blkback */
            molt_strbuf_addf(&b, ",backendtype=qdisk");
        molt_strbuf_add(&b, vdev, (size_t)(at - vdev));
    } else { /* edited: only the path is ours to change */
        molt_strbuf_add(&b, text, (size_t)(at - text));
    }
    molt_strbuf_addf(&b, "target=%s\"%s", to, at + strlen(target));
    return molt_write_file_atomic(path, b.s, b.len, 0600, err);
}
