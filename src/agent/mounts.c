/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "agent/mounts.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/fsio.h"
#include "base/strbuf.h"
#include "base/subprocess.h"

#define WAIT_MS  30000
#define DEPTH    8 /* of devices upon devices */
#define TOOL_MS  30000
#define LINE_MAX_BYTES 8192

void mounts_clear(struct agent_mounts *m)
{
    for (size_t i = 0; i < m->n; i++) {
        free(m->v[i].dir);
        free(m->v[i].fstype);
    }
    m->n = 0;
}

/* A line of mountinfo (proc(5)): "36 35 98:0 /root /dir rw,noatime shared:1 - ext3 /dev/root rw,errors=continue". */
static void take_line(struct agent_mounts *m, char *line)
{
    char *save = NULL, *word[6] = {NULL}, *rest = strstr(line, " - ");
    unsigned maj, min;
    if (!rest || m->n == MOUNTS_MAX)
        return;
    *rest = '\0';
    for (int i = 0; i < 6 && (word[i] = strtok_r(i ? NULL : line, " ", &save)); i++)
        ;
    char *fstype = strtok_r(rest + 3, " ", &save);
    strtok_r(NULL, " ", &save);
    const char *super = strtok_r(NULL, " \n", &save);
    if (!word[5] || !super || sscanf(word[2], "%u:%u", &maj, &min) != 2 || maj == 0 || strcmp(word[3], "/") != 0 ||
        strncmp(super, "ro", 2) == 0)
        return;
    dev_t dev = makedev(maj, min);
    for (size_t i = 0; i < m->n; i++)
        if (m->v[i].dev == dev)
            return;
    molt_unescape_octal(word[4]);
    struct agent_mount x = {molt_xstrdup(word[4]), molt_xstrdup(fstype), dev};
    size_t at = strcmp(x.dir, "/") == 0 ? 0 : m->n;
    memmove(&m->v[at + 1], &m->v[at], (m->n - at) * sizeof(m->v[0]));
    m->v[at] = x;
    m->n++;
}

int mounts_list(struct agent_mounts *ret, struct molt_error **err)
{
    CLEANUP_FREE char *line = NULL;
    size_t cap = 0;
    ret->n = 0;
    CLEANUP_FCLOSE FILE *f = fopen("/proc/self/mountinfo", "re");
    if (!f)
        return molt_error_errno(err, "/proc/self/mountinfo");
    while (getline(&line, &cap, f) > 0)
        if (ret->n < MOUNTS_MAX)
            take_line(ret, line);
    return ferror(f) ? molt_error_errno(err, "/proc/self/mountinfo") : 0;
}

int mounts_read(struct agent_mounts *ret, struct molt_error **err)
{
    int r = mounts_list(ret, err);
    if (r < 0)
        return r;
    if (ret->n == 0 || strcmp(ret->v[0].dir, "/") != 0)
        return molt_error_set(err, MOLT_E_UNSUPPORTED, "the root file system is not a writable one on a block device");
    return 0;
}

void mounts_device_name(dev_t dev, char name[64])
{
    char link[512];
    CLEANUP_FREE char *sys = molt_xasprintf("/sys/dev/block/%u:%u", major(dev), minor(dev));
    ssize_t n = readlink(sys, link, sizeof(link) - 1);
    link[n > 0 ? n : 0] = '\0';
    const char *cut = strrchr(link, '/');
    snprintf(name, 64, "%s", cut ? cut + 1 : "");
}

/* Of a partition, the disk; else name itself. */
static void disk_of(const char *name, char disk[64])
{
    char link[512];
    CLEANUP_FREE char *attr = molt_xasprintf("/sys/class/block/%s/partition", name);
    CLEANUP_FREE char *sys = molt_xasprintf("/sys/class/block/%s", name);
    snprintf(disk, 64, "%s", name);
    if (!molt_exists(attr))
        return;
    ssize_t n = readlink(sys, link, sizeof(link) - 1);
    link[n > 0 ? n : 0] = '\0';
    char *cut = strrchr(link, '/');
    if (!cut)
        return;
    *cut = '\0';
    const char *up = strrchr(link, '/');
    if (up)
        snprintf(disk, 64, "%s", up + 1);
}

static void add_disk(char **ret, size_t max, size_t *n, const char *disk)
{
    for (size_t i = 0; i < *n; i++)
        if (strcmp(ret[i], disk) == 0)
            return;
    if (*n < max)
        ret[(*n)++] = molt_xstrdup(disk);
}

static void add_disks(const char *name, char **ret, size_t max, size_t *n, int depth)
{
    char disk[64];
    CLEANUP_FREE char *slaves = molt_xasprintf("/sys/class/block/%s/slaves", name);
    CLEANUP_CLOSEDIR DIR *d = opendir(slaves);
    const struct dirent *e;
    size_t below = 0;
    while (d && depth < DEPTH && (e = readdir(d)))
        if (e->d_name[0] != '.') {
            add_disks(e->d_name, ret, max, n, depth + 1);
            below++;
        }
    if (below == 0) {
        disk_of(name, disk);
        add_disk(ret, max, n, disk);
    }
}

size_t mounts_disks(dev_t dev, char **ret, size_t max)
{
    char name[64];
    size_t n = 0;
    mounts_device_name(dev, name);
    if (*name)
        add_disks(name, ret, max, &n, 0);
    return n;
}

static const char *base_of_disk(const struct molt_json *disks, const char *disk)
{
    for (size_t i = 0; i < molt_json_size(disks); i++) {
        const struct molt_json *d = molt_json_at(disks, i);
        if (molt_streq(molt_json_get_string(d, "vdev"), disk))
            return molt_json_get_string(d, "base");
    }
    return NULL;
}

/* The base's name of a disk or a partition. */
static int base_name(const char *name, const struct molt_json *disks, char **ret, struct molt_error **err)
{
    char disk[64];
    disk_of(name, disk);
    const char *base = base_of_disk(disks, disk);
    if (!base || strchr(base, '/') || strncmp(name, disk, strlen(disk)) != 0)
        return molt_error_set(err, MOLT_E_UNSUPPORTED, "disk %s has no base here", disk);
    *ret = molt_xasprintf("%s%s", base, name + strlen(disk));
    return 0;
}

/* What was plugged a moment ago may have to be found first. */
static int wait_device(const char *name, dev_t *ret, struct molt_error **err)
{
    CLEANUP_FREE char *path = molt_xasprintf("/dev/%s", name);
    struct stat st;
    for (int64_t end = molt_mono_ms() + WAIT_MS;; molt_sleep_ms(50)) {
        if (stat(path, &st) == 0 && S_ISBLK(st.st_mode)) {
            *ret = st.st_rdev;
            return 0;
        }
        if (molt_mono_ms() > end)
            return molt_error_set(err, MOLT_E_TIMEOUT, "the base disk %s did not come", path);
    }
}

/* "0 2097152 linear 202:2 2048": one target of a table, with the base's device in the place of its own. */
static int base_target(char *line, const struct molt_json *disks, struct molt_strbuf *out, struct molt_error **err)
{
    unsigned long long start, len, off;
    unsigned maj, min;
    char type[64], name[64];
    CLEANUP_FREE char *base = NULL;
    dev_t dev;
    if (sscanf(line, "%llu %llu %63s", &start, &len, type) != 3)
        return molt_error_set(err, MOLT_E_PROTOCOL, "dmsetup: unknown line '%.100s'", line);
    if (strcmp(type, "linear") != 0 || sscanf(line, "%*u %*u %*s %u:%u %llu", &maj, &min, &off) != 3)
        return molt_error_set(err, MOLT_E_UNSUPPORTED, "a device-mapper target of type %s is not supported, linear ones are", type);
    mounts_device_name(makedev(maj, min), name);
    int r = base_name(name, disks, &base, err);
    if (r == 0)
        r = wait_device(base, &dev, err);
    if (r == 0)
        molt_strbuf_addf(out, ",%llu %llu linear %u:%u %llu", start, len, major(dev), minor(dev), off);
    return r;
}

/* A logical volume over the base's disks, by the table that the clone's own has. The volume group itself must not be
 * activated twice under one name. */
static int make_volume(const char *name, const struct molt_json *disks, const char *dm_name, struct molt_error **err)
{
    CLEANUP_FREE char *attr = molt_xasprintf("/sys/class/block/%s/dm/name", name), *volume = NULL, *table = NULL;
    CLEANUP_STRBUF struct molt_strbuf concise = MOLT_STRBUF_INIT;
    const struct molt_run_opts o = {.timeout_ms = TOOL_MS, .max_output = LINE_MAX_BYTES};
    int r = molt_read_file(attr, 256, &volume, NULL, err);
    if (r < 0)
        return r;
    volume[strcspn(volume, "\n")] = '\0';
    char *const show[] = {"dmsetup", "table", volume, NULL};
    r = molt_run_ok(show, &o, &table, err);
    if (r < 0)
        return r;
    molt_strbuf_addf(&concise, "%s,,,ro", dm_name);
    char *save = NULL;
    for (char *l = strtok_r(table, "\n", &save); r == 0 && l; l = strtok_r(NULL, "\n", &save))
        r = base_target(l, disks, &concise, err);
    if (r < 0)
        return r;
    char *const create[] = {"dmsetup", "create", "--concise", concise.s, NULL};
    return molt_run_ok(create, &o, NULL, err);
}

int mounts_base_device(dev_t dev, const struct molt_json *disks, const char *dm_name, char **ret, bool *ret_made,
                       struct molt_error **err)
{
    char name[64];
    CLEANUP_FREE char *base = NULL;
    dev_t there;
    mounts_device_name(dev, name);
    *ret_made = false;
    if (strncmp(name, "dm-", 3) == 0) {
        int r = make_volume(name, disks, dm_name, err);
        *ret_made = r == 0;
        if (r == 0)
            *ret = molt_xasprintf("/dev/mapper/%s", dm_name);
        return r;
    }
    int r = base_name(name, disks, &base, err);
    if (r == 0)
        r = wait_device(base, &there, err);
    if (r == 0)
        *ret = molt_xasprintf("/dev/%s", base);
    return r;
}

void mounts_remove_device(const char *dm_name)
{
    const struct molt_run_opts o = {.timeout_ms = TOOL_MS};
    char *const argv[] = {"dmsetup", "remove", (char *)dm_name, NULL};
    molt_run_ok(argv, &o, NULL, NULL);
}
