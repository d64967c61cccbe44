/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Which file systems and swaps stand on which disks, for the host's plan; and the frozen bases that it plugs into a clone. */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "agent/agent.h"
#include "agent/mounts.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/fsio.h"
#include "base/strbuf.h"

#define MAX_MOUNTS 64
#define MAX_DISKS 16
#define DPKG_INFO "/var/lib/dpkg/info"
#define MAX_LIST (16u << 20)
#define BASES_LIMIT_MS 20000
#define BASES_RULE_DIR "/run/udev/rules.d"
#define BASES_RULE BASES_RULE_DIR "/10-xenmolt-base.rules"

static struct molt_json *disks_of(dev_t dev)
{
    struct molt_json *list = molt_json_array();
    char *disk[MAX_DISKS];
    size_t n = mounts_disks(dev, disk, MAX_DISKS);
    for (size_t i = 0; i < n; i++) {
        molt_json_append(list, molt_json_string(disk[i]));
        free(disk[i]);
    }
    return list;
}

char *disks_escape(const char *s)
{
    CLEANUP_STRBUF struct molt_strbuf b = MOLT_STRBUF_INIT;
    for (; *s; s++)
        if (*s > ' ' && *s < 0x7f)
            molt_strbuf_add(&b, s, 1);
        else
            molt_strbuf_addf(&b, "\\%03o", (unsigned char)*s);
    return molt_strbuf_steal(&b);
}

char *disks_unescape(const char *s)
{
    char *v = molt_xstrdup(s ? s : "");
    molt_unescape_octal(v);
    return v;
}

/* Where packages put their files, on every distribution. */
static bool is_system_dir(const char *dir)
{
    static const char *const trees[] = {"/boot", "/usr", "/etc", "/bin", "/sbin", "/lib", "/lib64", "/root"};
    static const char *const dirs[] = {"/", "/var", "/var/lib", "/var/cache", "/var/log", "/var/tmp", "/tmp", "/opt"};
    for (size_t i = 0; i < sizeof(trees) / sizeof(trees[0]); i++) {
        size_t n = strlen(trees[i]);
        if (!strncmp(dir, trees[i], n) && (!dir[n] || dir[n] == '/'))
            return true;
    }
    for (size_t i = 0; i < sizeof(dirs) / sizeof(dirs[0]); i++)
        if (!strcmp(dir, dirs[i]))
            return true;
    return false;
}

/* Whether a package owns something below dir (dpkg's lists of files, deb(5)). */
static bool holds_packages(const char *dir)
{
    CLEANUP_FREE char *needle = molt_xasprintf("\n%s/", dir);
    DIR *d = opendir(DPKG_INFO);
    bool found = false;
    for (struct dirent *e; d && !found && (e = readdir(d));) {
        size_t n = strlen(e->d_name);
        CLEANUP_FREE char *path = molt_xasprintf(DPKG_INFO "/%s", e->d_name), *text = NULL;
        if (n > 5 && !strcmp(e->d_name + n - 5, ".list") && molt_read_file(path, MAX_LIST, &text, NULL, NULL) == 0)
            found = strstr(text, needle) != NULL;
    }
    if (d)
        closedir(d);
    return found;
}

/* One line of mountinfo (proc_pid_mountinfo(5)), where it is of a block device. */
static struct molt_json *mount_of(char *line)
{
    char root[4096], dir[4096], type[64], src[4096];
    unsigned maj, min;
    char *dash = strstr(line, " - ");
    if (!dash || sscanf(line, "%*s %*s %u:%u %4095s %4095s", &maj, &min, root, dir) != 4 || sscanf(dash, " - %63s %4095s", type, src) != 2 || src[0] != '/')
        return NULL;
    if (!strncmp(dir, MOLT_AGENT_RUN "/", sizeof(MOLT_AGENT_RUN)))
        return NULL;
    struct stat st;
    if (maj == 0 && stat(src, &st) == 0 && S_ISBLK(st.st_mode)) { /* btrfs has device numbers of its own */
        maj = major(st.st_rdev);
        min = minor(st.st_rdev);
    }
    CLEANUP_FREE char *shown = disks_escape(dir), *below = disks_escape(root);
    struct molt_json *v = molt_json_object();
    molt_json_set_string(v, "dir", shown);
    molt_json_set_string(v, "type", type);
    molt_json_set_string(v, "below", below);
    char device[64];
    mounts_device_name(makedev(maj, min), device);
    molt_json_set_string(v, "device", device);
    molt_json_set_bool(v, "system", is_system_dir(dir) || holds_packages(dir));
    molt_json_set(v, "disks", disks_of(makedev(maj, min)));
    return v;
}

static struct molt_json *swaps(void)
{
    struct molt_json *list = molt_json_array();
    CLEANUP_FREE char *text = NULL;
    char *save = NULL;
    if (molt_read_file("/proc/swaps", 1 << 16, &text, NULL, NULL) < 0)
        return list;
    strtok_r(text, "\n", &save);
    for (char *l; (l = strtok_r(NULL, "\n", &save)) && molt_json_size(list) < MAX_MOUNTS;) {
        char path[4096], type[32];
        struct stat st;
        if (sscanf(l, "%4095s %31s", path, type) != 2 || strcmp(type, "partition") != 0 || stat(path, &st) < 0)
            continue;
        CLEANUP_FREE char *shown = disks_escape(path);
        struct molt_json *v = molt_json_object();
        molt_json_set_string(v, "device", shown);
        molt_json_set(v, "disks", disks_of(st.st_rdev));
        molt_json_append(list, v);
    }
    return list;
}

int disks_report(struct molt_json *reply, struct molt_error **err)
{
    CLEANUP_FREE char *text = NULL;
    int r = molt_read_file("/proc/self/mountinfo", 1 << 20, &text, NULL, err);
    if (r < 0)
        return r;
    CLEANUP_JSON struct molt_json *list = molt_json_array();
    char *save = NULL;
    for (char *l = strtok_r(text, "\n", &save); l; l = strtok_r(NULL, "\n", &save)) {
        struct molt_json *v = mount_of(l);
        if (!v)
            continue;
        if (molt_json_size(list) == MAX_MOUNTS) {
            molt_json_free(v);
            return molt_error_set(err, MOLT_E_UNSUPPORTED, "the guest has more than %d file systems mounted from disks", MAX_MOUNTS);
        }
        molt_json_append(list, v);
    }
    molt_json_set(reply, "mounts", MOLT_STEAL_PTR(list));
    molt_json_set(reply, "swaps", swaps());
    return 0;
}

/* ---- bases ---- */

bool disks_is_name(const char *s)
{
    return s && *s && strlen(s) < 16 && strspn(s, "abcdefghijklmnopqrstuvwxyz0123456789") == strlen(s);
}

/* Each partition that the disk has, its base has too: the kernel reads the table a moment after the disk has come. */
static bool base_complete(const char *disk, const char *base)
{
    CLEANUP_FREE char *sys = molt_xasprintf("/sys/class/block/%s", disk), *dev = molt_xasprintf("/dev/%s", base);
    bool complete = molt_exists(dev);
    DIR *d = opendir(sys);
    for (struct dirent *e; complete && d && (e = readdir(d));) {
        CLEANUP_FREE char *partition = molt_xasprintf("%s/%s/partition", sys, e->d_name);
        if (strncmp(e->d_name, disk, strlen(disk)) != 0 || !molt_exists(partition))
            continue;
        CLEANUP_FREE char *same = molt_xasprintf("/dev/%s%s", base, e->d_name + strlen(disk));
        complete = molt_exists(same);
    }
    if (d)
        closedir(d);
    return complete;
}

/* {"disks": [{"vdev", "base"}]}: the host has plugged the bases; returns when they can be opened. */
int h_disks_wait(struct molt_request *rq, struct molt_json *reply, struct molt_error **err)
{
    const struct molt_json *list = molt_json_get(rq->args, "disks");
    int64_t end = molt_mono_ms() + BASES_LIMIT_MS;
    (void)reply;
    for (size_t i = 0; i < molt_json_size(list); i++) {
        const char *disk = molt_json_get_string(molt_json_at(list, i), "vdev"), *base = molt_json_get_string(molt_json_at(list, i), "base");
        if (!disks_is_name(disk) || !disks_is_name(base))
            return molt_error_set(err, MOLT_E_PROTOCOL, "disks-wait: bad arguments");
        while (!base_complete(disk, base)) {
            if (molt_mono_ms() > end)
                return molt_error_set(err, MOLT_E_TIMEOUT, "the base of disk %s did not come as %s, with the same partitions, within %d s", disk, base, BASES_LIMIT_MS / 1000);
            molt_sleep_ms(20);
        }
    }
    return 0;
}

void disks_hide_bases(const char *names)
{
    CLEANUP_STRBUF struct molt_strbuf b = MOLT_STRBUF_INIT;
    CLEANUP_FREE char *copy = molt_xstrdup(names);
    char *save = NULL;
    for (char *n = strtok_r(copy, ",", &save); n; n = strtok_r(NULL, ",", &save))
        if (disks_is_name(n))
            molt_strbuf_addf(&b, "SUBSYSTEM==\"block\", KERNEL==\"%s|%s[0-9]*\", ENV{UDEV_DISABLE_PERSISTENT_STORAGE_RULES_FLAG}=\"1\", ENV{SYSTEMD_READY}=\"0\"\n", n, n);
    molt_mkdir_p(BASES_RULE_DIR, 0755, NULL);
    molt_write_file(BASES_RULE, molt_strbuf_str(&b), b.len, 0644, NULL);
}

/* {}: this guest took over, the bases go away, and their names are free again. */
int h_disks_forget(struct molt_request *rq, struct molt_json *reply, struct molt_error **err)
{
    (void)rq;
    (void)reply;
    (void)err;
    unlink(BASES_RULE);
    return 0;
}
