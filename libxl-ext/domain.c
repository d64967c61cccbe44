/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "domain.h"

#include <errno.h>
#include <fcntl.h>
#include <libxl_utils.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/strbuf.h"

#define XL_LOCK_FILE "/var/lock/xl" /* tools/xl/xl.h */
#define USERDATA_ID "libxl-json"
#define DM_END_LIMIT_MS 15000
#define ATTACH_LIMIT_MS 30000
#define XENBUS_CONNECTED 4 /* XenbusStateConnected of xen/io/xenbus.h */

static int failed(struct molt_error **err, int rc, const char *what, uint32_t domid)
{
    return molt_error_set(err, rc == ERROR_NOMEM || rc == ERROR_NOPARAVIRT ? MOLT_E_NO_SPACE : MOLT_E_INTERNAL,
                          "libxl: %s of domain %u failed (%d)", what, domid, rc);
}

void molt_set_string(char **field, const char *value)
{
    free(*field);
    *field = value ? molt_xstrdup(value) : NULL;
}

int molt_domain_info(struct xenmolt *x, uint32_t domid, struct molt_domain *ret, struct molt_error **err)
{
    libxl_dominfo info;
    libxl_dominfo_init(&info);
    int rc = libxl_domain_info(x->xl, &info, domid);
    if (rc) {
        libxl_dominfo_dispose(&info);
        return molt_error_set(err, MOLT_E_NO_DOMAIN, "no domain with id %u", domid);
    }
    *ret = (struct molt_domain){.domid = domid, .pv = info.domain_type == LIBXL_DOMAIN_TYPE_PV, .paused = info.paused,
                                .shutdown = info.shutdown, .dying = info.dying, .memkb = info.current_memkb,
                                .shutdown_reason = info.shutdown ? (int)info.shutdown_reason : -1};
    snprintf(ret->uuid, sizeof(ret->uuid), LIBXL_UUID_FMT, LIBXL_UUID_BYTES(info.uuid));
    libxl_dominfo_dispose(&info);
    CLEANUP_FREE char *name = libxl_domid_to_name(x->xl, domid);
    snprintf(ret->name, sizeof(ret->name), "%s", name ? name : "");
    return 0;
}

bool molt_domain_exists(struct xenmolt *x, uint32_t domid)
{
    struct molt_domain d;
    return molt_domain_info(x, domid, &d, NULL) == 0 && !d.dying;
}

bool molt_domain_by_name(struct xenmolt *x, const char *name, struct molt_domain *ret)
{
    uint32_t domid;
    return libxl_name_to_domid(x->xl, name, &domid) == 0 && molt_domain_info(x, domid, ret, NULL) == 0;
}

bool molt_domain_by_uuid(struct xenmolt *x, const char *uuid, struct molt_domain *ret)
{
    int n = 0;
    libxl_dominfo *v = uuid ? libxl_list_domain(x->xl, &n) : NULL;
    bool found = false;
    for (int i = 0; i < n && !found; i++) {
        char text[MOLT_UUID_TEXT];
        snprintf(text, sizeof(text), LIBXL_UUID_FMT, LIBXL_UUID_BYTES(v[i].uuid));
        found = !strcmp(text, uuid) && molt_domain_info(x, v[i].domid, ret, NULL) == 0 && !ret->dying;
    }
    if (v)
        libxl_dominfo_list_free(v, n);
    return found;
}

int molt_domain_find(struct xenmolt *x, const char *name_or_id, struct molt_domain *ret, struct molt_error **err)
{
    uint32_t domid;
    if (libxl_domain_qualifier_to_domid(x->xl, name_or_id, &domid) != 0)
        return molt_error_set(err, MOLT_E_NO_DOMAIN, "no domain named %s; `xl list` shows those that run", name_or_id);
    return molt_domain_info(x, domid, ret, err);
}

int molt_domain_config(struct xenmolt *x, uint32_t domid, libxl_domain_config *cfg, struct molt_error **err)
{
    libxl_domain_config_init(cfg);
    int rc = libxl_retrieve_domain_configuration(x->xl, domid, cfg, NULL);
    if (rc) {
        libxl_domain_config_dispose(cfg);
        return failed(err, rc, "configuration", domid);
    }
    return 0;
}

int molt_domain_store_config(struct xenmolt *x, uint32_t domid, libxl_domain_config *cfg, struct molt_error **err)
{
    CLEANUP_FREE char *json = libxl_domain_config_to_json(x->xl, cfg);
    int rc = json ? libxl_userdata_store(x->xl, domid, USERDATA_ID, (const uint8_t *)json, (int)strlen(json) + 1) : ERROR_FAIL;
    return rc ? failed(err, rc, "storing the configuration", domid) : 0;
}

/* xl serialises domain creation by this lock (free memory is computed, then used): do as xl does. */
static int take_xl_lock(struct molt_error **err)
{
    struct flock fl = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    int fd = open(XL_LOCK_FILE, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0)
        return molt_error_errno(err, "open " XL_LOCK_FILE);
    while (fcntl(fd, F_SETLKW, &fl) < 0)
        if (errno != EINTR) {
            int r = molt_error_errno(err, "lock " XL_LOCK_FILE);
            close(fd);
            return r;
        }
    return fd;
}

int molt_domain_create(struct xenmolt *x, libxl_domain_config *cfg, bool start, uint32_t *ret_domid, struct molt_error **err)
{
    CLEANUP_CLOSE int lock = take_xl_lock(err);
    if (lock < 0)
        return lock;
    uint32_t domid = 0;
    int rc = libxl_domain_create_new(x->xl, cfg, &domid, NULL, NULL);
    if (rc)
        return molt_error_set(err, rc == ERROR_NOMEM ? MOLT_E_NO_SPACE : MOLT_E_INTERNAL, "libxl: creating %s failed (%d); see the log", cfg->c_info.name, rc);
    *ret_domid = domid;
    if (!start)
        return 0;
    rc = libxl_domain_unpause(x->xl, domid, NULL);
    return rc ? failed(err, rc, "start", domid) : 0;
}

/* The domain's QEMU, as a pidfd (pidfd_open(2)); -1: it has none, or it is gone. */
static int device_model(struct xenmolt *x, uint32_t domid)
{
    CLEANUP_FREE char *pid = molt_store_readf(&x->store, "/local/domain/%u/image/device-model-pid", domid);
    long n = pid ? strtol(pid, NULL, 10) : 0;
    return n > 0 && n <= INT_MAX ? (int)syscall(SYS_pidfd_open, (pid_t)n, 0) : -1;
}

int molt_domain_destroy(struct xenmolt *x, uint32_t domid, struct molt_error **err)
{
    struct molt_domain d;
    if (molt_domain_info(x, domid, &d, NULL) < 0)
        return 0;
    CLEANUP_CLOSE int qemu = device_model(x, domid);
    int rc = libxl_domain_destroy(x->xl, domid, NULL);
    if (rc && molt_domain_exists(x, domid))
        return failed(err, rc, "destruction", domid);
    /* libxl tells QEMU to end and does not wait: until then it may hold its locks on the images. */
    if (qemu >= 0) {
        struct pollfd p = {.fd = qemu, .events = POLLIN};
        while (poll(&p, 1, DM_END_LIMIT_MS) < 0 && errno == EINTR)
            ;
    }
    return 0;
}

int molt_domain_pause(struct xenmolt *x, uint32_t domid, struct molt_error **err)
{
    int rc = libxl_domain_pause(x->xl, domid, NULL);
    return rc ? failed(err, rc, "pause", domid) : 0;
}

int molt_domain_unpause(struct xenmolt *x, uint32_t domid, struct molt_error **err)
{
    int rc = libxl_domain_unpause(x->xl, domid, NULL);
    return rc ? failed(err, rc, "unpause", domid) : 0;
}

int molt_domain_wait_shutdown(struct xenmolt *x, uint32_t domid, int timeout_ms, bool (*cancelled)(void *), void *ctx, struct molt_error **err)
{
    int64_t end = molt_mono_ms() + timeout_ms;
    for (;;) {
        struct molt_domain d;
        int r = molt_domain_info(x, domid, &d, err);
        if (r < 0)
            return r;
        if (d.shutdown)
            return 0;
        if (cancelled && cancelled(ctx))
            return molt_error_set(err, MOLT_E_ABORTED, "aborted");
        if (molt_mono_ms() > end)
            return molt_error_set(err, MOLT_E_TIMEOUT, "domain %u did not shut down within %d s", domid, timeout_ms / 1000);
        molt_sleep_ms(200);
    }
}

int molt_domain_free_memory(struct xenmolt *x, uint64_t *ret_kib, struct molt_error **err)
{
    int rc = libxl_get_free_memory(x->xl, ret_kib);
    return rc ? failed(err, rc, "free memory", 0) : 0;
}

int molt_domain_need_memory(struct xenmolt *x, uint32_t domid, uint64_t *ret_kib, struct molt_error **err)
{
    libxl_domain_config cfg;
    int r = molt_domain_config(x, domid, &cfg, err);
    if (r < 0)
        return r;
    int rc = libxl_domain_need_memory(x->xl, &cfg, domid, ret_kib);
    libxl_domain_config_dispose(&cfg);
    return rc ? failed(err, rc, "memory need", domid) : 0;
}

static int wait_connected(struct xenmolt *x, uint32_t domid, libxl_device_disk *disk, struct molt_error **err)
{
    int64_t end = molt_mono_ms() + ATTACH_LIMIT_MS;
    for (;;) {
        libxl_diskinfo info;
        libxl_diskinfo_init(&info);
        int rc = libxl_device_disk_getinfo(x->xl, domid, disk, &info);
        bool connected = rc == 0 && info.state == XENBUS_CONNECTED;
        libxl_diskinfo_dispose(&info);
        if (connected)
            return 0;
        if (molt_mono_ms() > end)
            return molt_error_set(err, MOLT_E_TIMEOUT, "domain %u did not connect to its new disk %s within %d s", domid, disk->vdev, ATTACH_LIMIT_MS / 1000);
        molt_sleep_ms(20);
    }
}

int molt_domain_attach_disk(struct xenmolt *x, uint32_t domid, const char *vdev, const char *path, const char *raw_by, struct molt_error **err)
{
    libxl_device_disk disk, old;
    libxl_device_disk_init(&old);
    libxl_device_disk_init(&disk);
    disk.pdev_path = molt_xstrdup(path);
    disk.vdev = molt_xstrdup(vdev);
    disk.format = raw_by ? LIBXL_DISK_FORMAT_RAW : LIBXL_DISK_FORMAT_QCOW2;
    disk.backend = raw_by && !strcmp(raw_by, "phy") ? LIBXL_DISK_BACKEND_PHY : LIBXL_DISK_BACKEND_QDISK;
    disk.readwrite = 1;
    int rc = libxl_vdev_to_device_disk(x->xl, domid, vdev, &old) == 0 ? 0 : libxl_device_disk_add(x->xl, domid, &disk, NULL);
    int r = rc ? failed(err, rc, "disk attach", domid) : wait_connected(x, domid, &disk, err);
    libxl_device_disk_dispose(&old);
    libxl_device_disk_dispose(&disk);
    return r;
}

int molt_domain_detach_disk(struct xenmolt *x, uint32_t domid, const char *vdev, struct molt_error **err)
{
    libxl_device_disk disk;
    libxl_device_disk_init(&disk);
    int rc = libxl_vdev_to_device_disk(x->xl, domid, vdev, &disk);
    if (rc == 0)
        rc = libxl_device_disk_remove(x->xl, domid, &disk, NULL);
    libxl_device_disk_dispose(&disk);
    return rc ? failed(err, rc, "disk detach", domid) : 0;
}
