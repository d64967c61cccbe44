/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "diskplan.h"

#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/strbuf.h"
#include "disk.h"

#define MAX_MOUNTS 64 /* as many as the agent tells */
#define MAX_DIR 4096

struct plan {
    const struct molt_json *disks, *mounts, *swaps;
    const char *merge_disks;
    bool have_root;
};

/* The vdev under which the domain has the guest's disk `name`; NULL: it has none of that name. */
static const char *vdev_of(const struct plan *p, const char *name)
{
    for (size_t i = 0; i < molt_json_size(p->disks); i++) {
        char seen[16];
        const char *vdev = molt_json_get_string(molt_json_at(p->disks, i), "vdev");
        if (vdev && molt_vdev_guest_name(vdev, seen, sizeof(seen)) && molt_streq(seen, name))
            return vdev;
    }
    return NULL;
}

/* One file system of the guest, as its agent tells. */
static int check_mount(struct plan *p, const struct molt_json *m, struct molt_error **err)
{
    const char *dir = molt_json_get_string(m, "dir"), *type = molt_json_get_string(m, "type"), *below = molt_json_get_string(m, "below");
    const struct molt_json *disks = molt_json_get(m, "disks");
    if (!dir || dir[0] != '/' || strlen(dir) > MAX_DIR || !type || !below || !molt_json_get_string(m, "device") || molt_json_size(disks) == 0 || molt_json_size(disks) > MOLT_MAX_DISKS)
        return molt_error_set(err, MOLT_E_PROTOCOL, "the agent tells of a mount in a form that is not known");
    if (strcmp(below, "/") != 0)
        return molt_error_set(err, MOLT_E_UNSUPPORTED, "%.200s in the guest is a bind mount or a subvolume (of %.200s), which is not supported; unmount it for the time of the upgrade", dir, below);
    for (size_t i = 0; i < molt_json_size(disks); i++) {
        const char *name = molt_json_str(molt_json_at(disks, i));
        if (!name || !vdev_of(p, name))
            return molt_error_set(err, MOLT_E_UNSUPPORTED, "the file system at %.200s stands on %.60s, which is no disk of the domain; unmount it for the time of the upgrade", dir, name ? name : "?");
    }
    p->have_root |= !strcmp(dir, "/");
    if (strcmp(type, "ext4") != 0 && strcmp(type, "xfs") != 0)
        return molt_error_set(err, MOLT_E_UNSUPPORTED, "the guest's file system at %.200s is %.60s; ext4 and xfs are supported", dir, type);
    return 0;
}

static bool stands_on(const struct plan *p, const struct molt_json *entry, const char *vdev)
{
    const struct molt_json *disks = molt_json_get(entry, "disks");
    for (size_t i = 0; i < molt_json_size(disks); i++) {
        const char *name = molt_json_str(molt_json_at(disks, i));
        if (name && molt_streq(vdev_of(p, name), vdev))
            return true;
    }
    return false;
}

/* The disk itself or a partition of it, nothing that is mapped. */
static bool is_plain(const struct molt_json *m, const char *vdev)
{
    const char *device = molt_json_get_string(m, "device");
    char name[16];
    if (!molt_vdev_guest_name(vdev, name, sizeof(name)) || strncmp(device, name, strlen(name)) != 0)
        return false;
    device += strlen(name);
    return strspn(device, "0123456789") == strlen(device);
}

/* Whether a comma-separated list has the word. */
static bool is_listed(const char *list, const char *word)
{
    size_t n = strlen(word);
    for (const char *p = list; p && *p; p = strchr(p, ',') ? strchr(p, ',') + 1 : NULL)
        if (!strncmp(p, word, n) && (!p[n] || p[n] == ','))
            return true;
    return false;
}

/* Whether nothing of the system is on this disk, so that it can be handed over: where its file systems are mounted, or
 * NULL. One of which nothing is mounted has nothing of the system either. */
static struct molt_json *data_dirs(const struct plan *p, const char *vdev)
{
    CLEANUP_JSON struct molt_json *dirs = molt_json_array();
    if (is_listed(p->merge_disks, vdev))
        return NULL;
    for (size_t i = 0; i < molt_json_size(p->swaps); i++)
        if (stands_on(p, molt_json_at(p->swaps, i), vdev))
            return NULL;
    for (size_t i = 0; i < molt_json_size(p->mounts); i++) {
        const struct molt_json *m = molt_json_at(p->mounts, i);
        if (!stands_on(p, m, vdev))
            continue;
        if (molt_json_get_bool(m, "system", true) || !is_plain(m, vdev))
            return NULL;
        molt_json_append(dirs, molt_json_copy(molt_json_get(m, "dir")));
    }
    return MOLT_STEAL_PTR(dirs);
}

/* Each disk, with "dirs" when it is handed over; the directories of those that are merged. */
static void assign(const struct plan *p, struct molt_json *disks, struct molt_json *merged)
{
    for (size_t i = 0; i < molt_json_size(p->disks); i++) {
        struct molt_json *d = molt_json_copy(molt_json_at(p->disks, i));
        struct molt_json *dirs = data_dirs(p, molt_json_get_string(d, "vdev"));
        if (dirs)
            molt_json_set(d, "dirs", dirs);
        molt_json_append(disks, d);
        for (size_t k = 0; !dirs && k < molt_json_size(p->mounts); k++)
            if (stands_on(p, molt_json_at(p->mounts, k), molt_json_get_string(d, "vdev")))
                molt_json_append(merged, molt_json_copy(molt_json_get(molt_json_at(p->mounts, k), "dir")));
    }
}

/* Those that shall be merged are disks of the domain. */
static int check_merge_disks(const struct plan *p, struct molt_error **err)
{
    for (const char *at = p->merge_disks; at && *at; at = strchr(at, ',') ? strchr(at, ',') + 1 : NULL) {
        CLEANUP_FREE char *word = molt_xstrndup(at, strcspn(at, ","));
        bool known = false;
        for (size_t i = 0; i < molt_json_size(p->disks); i++)
            known |= molt_streq(word, molt_json_get_string(molt_json_at(p->disks, i), "vdev"));
        if (!known)
            return molt_error_set(err, MOLT_E_USAGE, "the domain has no disk %s to be merged; `xl block-list` shows its disks", word);
    }
    return 0;
}

int molt_diskplan(const struct molt_json *disks, const struct molt_json *guest, const char *merge_disks, struct molt_json **ret_disks,
                  struct molt_json **ret_merged, struct molt_error **err)
{
    struct plan p = {.disks = disks, .mounts = molt_json_get(guest, "mounts"), .swaps = molt_json_get(guest, "swaps"), .merge_disks = merge_disks};
    int r = check_merge_disks(&p, err);
    if (r == 0 && (molt_json_type(p.mounts) != MOLT_JSON_ARRAY || molt_json_size(p.mounts) > MAX_MOUNTS || molt_json_size(p.swaps) > MAX_MOUNTS))
        r = molt_error_set(err, MOLT_E_PROTOCOL, "the agent tells of its mounts in a form that is not known");
    for (size_t i = 0; r == 0 && i < molt_json_size(p.mounts); i++)
        r = check_mount(&p, molt_json_at(p.mounts, i), err);
    if (r == 0 && !p.have_root)
        r = molt_error_set(err, MOLT_E_UNSUPPORTED, "the guest's root is not a file system on one of its disks");
    if (r < 0)
        return r;
    *ret_disks = molt_json_array();
    *ret_merged = molt_json_array();
    assign(&p, *ret_disks, *ret_merged);
    return 0;
}
