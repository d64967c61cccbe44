/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What changes without an event: stores through shared writable mappings, files behind loop devices, and writes
 * through an overlay file system into its upper directory. Looked for at each sync. A mapping that is gone by then has
 * told itself: its end closes the file.
 */
#include <ctype.h>
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
#include "merge/manifest.h"
#include "merge/record_internal.h"

/* The mapping itself leads to the file, whatever names it has. */
static void add_by_mapping(struct recorder *c, unsigned root, const char *pid, const char *range)
{
    union rec_handle u = {.h.handle_bytes = MOLT_RECORD_HANDLE_MAX};
    struct stat st;
    int mount_id;
    CLEANUP_FREE char *path = molt_xasprintf("/proc/%s/map_files/%s", pid, range);
    CLEANUP_CLOSE int fd = open(path, O_PATH | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) < 0) {
        if (errno != ENOENT && errno != ESRCH)
            rec_lose(c, "a mapped file cannot be found");
        return;
    }
    if (st.st_nlink == 0 || st.st_dev != c->roots[root].dev)
        return;
    if (name_to_handle_at(fd, "", &u.h, &mount_id, AT_EMPTY_PATH) < 0)
        rec_lose(c, "a mapped file has no handle");
    else
        rec_add_inode(c, root, u.h.handle_type, u.h.f_handle, u.h.handle_bytes);
}

/* "start-end perms offset major:minor inode   path" */
static void maps_line(struct recorder *c, const char *pid, char *line)
{
    char range[64], perms[8];
    unsigned maj, min;
    unsigned long long ino;
    int at = 0;
    const char *space = strchr(line, ' ');
    if (!space || strlen(space) < 5 || space[2] != 'w' || space[4] != 's')
        return;
    if (sscanf(line, "%63s %7s %*x %x:%x %llu %n", range, perms, &maj, &min, &ino, &at) < 5 || !at)
        return;
    for (unsigned i = 0; i < c->n_roots; i++) {
        if (c->roots[i].dev != makedev(maj, min))
            continue;
        molt_unescape_octal(line + at);
        if (!rec_add_absolute(c, line + at, 0, (ino_t)ino))
            add_by_mapping(c, i, pid, range);
    }
}

/* What is needed again for each process. */
struct reading {
    char *line;
    size_t cap;
    char room[4096];           /* as much as the kernel gives at once; stdio takes a quarter of it in /proc */
    struct rec_set namespaces; /* seen */
};

static void maps_of(struct recorder *c, const char *pid, struct reading *rd)
{
    CLEANUP_FREE char *path = molt_xasprintf("/proc/%s/maps", pid);
    CLEANUP_FCLOSE FILE *f = fopen(path, "re");
    ssize_t n;
    if (f)
        (void)setvbuf(f, rd->room, _IOFBF, sizeof(rd->room));
    while (f && (n = getline(&rd->line, &rd->cap, f)) > 0) {
        rd->line[n - (rd->line[n - 1] == '\n')] = '\0';
        maps_line(c, pid, rd->line);
    }
}

static void add_loop_files(struct recorder *c)
{
    CLEANUP_CLOSEDIR DIR *d = opendir("/sys/block");
    const struct dirent *e;
    while (d && (e = readdir(d))) {
        char text[4097];
        if (strncmp(e->d_name, "loop", 4) != 0)
            continue;
        CLEANUP_FREE char *path = molt_xasprintf("/sys/block/%s/loop/backing_file", e->d_name);
        CLEANUP_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
        ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
        if (n <= 0)
            continue;
        text[n - (text[n - 1] == '\n')] = '\0';
        rec_add_absolute(c, text, 0, 0);
    }
}

/* One line of mountinfo. What cannot be placed may be on a recorded file system. */
static void overlay_line(struct recorder *c, const char *pid, char *line)
{
    char *type = strstr(line, " - "), *upper;
    if (!type || strncmp(type + 3, "overlay ", 8) != 0 || !(upper = strstr(type, "upperdir=")))
        return;
    upper += strlen("upperdir=");
    upper[strcspn(upper, ",\n")] = '\0';
    molt_unescape_octal(upper);
    struct stat st;
    CLEANUP_FREE char *there = molt_xasprintf("/proc/%s/root/%s", pid, upper);
    if (stat(there, &st) < 0) {
        rec_lose(c, "an overlay file system's upper directory cannot be found");
        return;
    }
    for (size_t i = 0; i < c->n_roots; i++)
        if (st.st_dev == c->roots[i].dev && !rec_add_absolute(c, upper, MOLT_DIRTY_SUBTREE, st.st_ino))
            rec_lose(c, "an overlay file system's upper directory has another path here");
}

static void overlays_of(struct recorder *c, const char *pid)
{
    CLEANUP_FREE char *line = NULL, *path = molt_xasprintf("/proc/%s/mountinfo", pid);
    size_t cap = 0;
    CLEANUP_FCLOSE FILE *f = fopen(path, "re");
    while (f && getline(&line, &cap, f) > 0)
        overlay_line(c, pid, line);
}

/* Of each mount namespace once, by whatever process is in it. */
static void overlays_seen_by(struct recorder *c, const char *pid, struct reading *rd)
{
    char ns[64];
    CLEANUP_FREE char *path = molt_xasprintf("/proc/%s/ns/mnt", pid);
    ssize_t n = readlink(path, ns, sizeof(ns) - 1);
    if (n <= 0)
        return;
    ns[n] = '\0';
    const char *number = strchr(ns, '[');
    if (number && rec_set_add(&rd->namespaces, strtoull(number + 1, NULL, 10), 1))
        overlays_of(c, pid);
}

/* A thread of the kernel, most of what is in /proc, has neither mappings nor a namespace of its own; nor has what is dead. */
static bool is_program(const char *pid)
{
    char to[2];
    CLEANUP_FREE char *path = molt_xasprintf("/proc/%s/exe", pid);
    return readlink(path, to, sizeof(to)) >= 0 || errno != ENOENT;
}

static void add_processes(struct recorder *c)
{
    struct reading rd = {0};
    CLEANUP_CLOSEDIR DIR *d = opendir("/proc");
    const struct dirent *e;
    if (!d)
        rec_lose(c, "/proc cannot be read");
    while (d && (e = readdir(d)))
        if (isdigit((unsigned char)e->d_name[0]) && is_program(e->d_name)) {
            maps_of(c, e->d_name, &rd);
            overlays_seen_by(c, e->d_name, &rd);
        }
    rec_set_clear(&rd.namespaces);
    free(rd.line);
}

void rec_add_unseen(struct recorder *c)
{
    if (c->lost)
        return;
    add_processes(c);
    add_loop_files(c);
}
