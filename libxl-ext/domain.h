/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Domains by libxl. This and domain.c are the one place that knows differences between Xen releases. */
#ifndef MOLT_LIBXL_DOMAIN_H
#define MOLT_LIBXL_DOMAIN_H

#include "context.h"

#define MOLT_UUID_TEXT 37

struct molt_domain {
    uint32_t domid;
    char name[256];
    char uuid[MOLT_UUID_TEXT];
    bool pv, paused, shutdown, dying;
    int shutdown_reason; /* -1: none */
    uint64_t memkb;      /* current */
};

/* By name or number. MOLT_E_NO_DOMAIN when there is none. */
int molt_domain_find(struct xenmolt *x, const char *name_or_id, struct molt_domain *ret, struct molt_error **err);
int molt_domain_info(struct xenmolt *x, uint32_t domid, struct molt_domain *ret, struct molt_error **err);
bool molt_domain_exists(struct xenmolt *x, uint32_t domid);
/* As find, false when there is none. */
bool molt_domain_by_name(struct xenmolt *x, const char *name, struct molt_domain *ret);

/* By UUID, which a reboot of the guest keeps and no other guest ever has; domids go stale. */
bool molt_domain_by_uuid(struct xenmolt *x, const char *uuid, struct molt_domain *ret);

/* The running configuration. The caller disposes with libxl_domain_config_dispose. */
int molt_domain_config(struct xenmolt *x, uint32_t domid, libxl_domain_config *cfg, struct molt_error **err);
/* Replaces what libxl keeps of the configuration for the domain's next start (userdata "libxl-json"). */
int molt_domain_store_config(struct xenmolt *x, uint32_t domid, libxl_domain_config *cfg, struct molt_error **err);
/* Creates, and unpauses when start. Holds xl's own lock, as xl does. ret_domid is set as soon as it is known. */
int molt_domain_create(struct xenmolt *x, libxl_domain_config *cfg, bool start, uint32_t *ret_domid, struct molt_error **err);
/* Waits (15 s at most) until its device model is gone too, and with it the locks on its images. Missing: success. */
int molt_domain_destroy(struct xenmolt *x, uint32_t domid, struct molt_error **err);
int molt_domain_pause(struct xenmolt *x, uint32_t domid, struct molt_error **err);
int molt_domain_unpause(struct xenmolt *x, uint32_t domid, struct molt_error **err);
/* Waits until the domain has shut down (by itself). */
int molt_domain_wait_shutdown(struct xenmolt *x, uint32_t domid, int timeout_ms, bool (*cancelled)(void *), void *ctx, struct molt_error **err);
/* KiB that may be used for new domains. */
int molt_domain_free_memory(struct xenmolt *x, uint64_t *ret_kib, struct molt_error **err);
int molt_domain_need_memory(struct xenmolt *x, uint32_t domid, uint64_t *ret_kib, struct molt_error **err);
/* Gives a running domain one more disk and waits (30 s at most) until the guest has connected to it. raw_by: NULL for a qcow2
 * image that QEMU serves, or who serves a raw one ("phy", "qdisk"). Success when it has that disk already. */
int molt_domain_attach_disk(struct xenmolt *x, uint32_t domid, const char *vdev, const char *path, const char *raw_by, struct molt_error **err);
/* Removes a disk by its vdev from a running domain. */
int molt_domain_detach_disk(struct xenmolt *x, uint32_t domid, const char *vdev, struct molt_error **err);
void molt_set_string(char **field, const char *value);

#endif
