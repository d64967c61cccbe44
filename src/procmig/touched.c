/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "procmig/touched.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fsio.h"
#include "base/strbuf.h"
#include "procmig/lazy.h"
#include "procmig/pins.h"
#include "procmig/procfs.h"

#define PRESENT (1ull << 63)
#define ENTRIES 512u
#define GAP     (16 * MOLT_PAGE) /* what lies between two ranges is read along */
#define TEXT    (256u << 10) /* of all paths */
#define ADVICE  (128u << 10) /* bytes that are advised of at a time: what the kernel reads ahead by default */
#define BUFFER  (32u << 10)

struct collect {
    struct molt_json *list;
    size_t ranges, text;
    int pagemap;
};

/* A range of the file that is being looked at; len 0: none yet. */
struct range {
    uint64_t off, len;
};

static void flush(struct collect *c, const struct range *r, struct molt_json *to)
{
    if (r->len == 0)
        return;
    molt_json_append(to, molt_json_int((int64_t)r->off));
    molt_json_append(to, molt_json_int((int64_t)r->len));
    c->ranges++;
}

static void grow(struct collect *c, struct range *r, uint64_t off, struct molt_json *to)
{
    if (r->len > 0 && off <= r->off + r->len + GAP) {
        r->len = off + MOLT_PAGE - r->off;
        return;
    }
    flush(c, r, to);
    *r = (struct range){off, MOLT_PAGE};
}

static void look(struct collect *c, const struct molt__map *m)
{
    CLEANUP_FREE char *path = molt__path_encode(m->path);
    CLEANUP_JSON struct molt_json *ranges = molt_json_array();
    struct range r = {0, 0};

    for (uint64_t at = m->start; path && at < m->end && c->ranges < MOLT_TOUCHED_MAX;) {
        uint64_t entry[ENTRIES], left = (m->end - at) / MOLT_PAGE;
        const size_t n = left < ENTRIES ? (size_t)left : ENTRIES;

        if (molt_pread_all(c->pagemap, entry, n * sizeof(*entry), at / MOLT_PAGE * sizeof(*entry)) != (ssize_t)(n * sizeof(*entry)))
            break;
        for (size_t i = 0; i < n; i++)
            if (entry[i] & PRESENT)
                grow(c, &r, m->off + (at - m->start) + i * MOLT_PAGE, ranges);
        at += n * MOLT_PAGE;
    }
    flush(c, &r, ranges);
    if (molt_json_size(ranges) == 0 || (c->text += strlen(path)) > TEXT)
        return;
    struct molt_json *o = molt_json_object();
    molt_json_set_string(o, "path", path);
    molt_json_set(o, "ranges", MOLT_STEAL_PTR(ranges));
    molt_json_append(c->list, o);
}

static void look_at_process(struct collect *c, pid_t pid)
{
    CLEANUP_FREE char *text = NULL, *path = molt_xasprintf("/proc/%d/pagemap", (int)pid);
    CLEANUP_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
    char *save = NULL;

    if (fd < 0 || molt__proc_text(pid, "maps", &text, NULL) < 0)
        return;
    c->pagemap = fd;
    for (char *line = strtok_r(text, "\n", &save); line && c->ranges < MOLT_TOUCHED_MAX; line = strtok_r(NULL, "\n", &save)) {
        struct molt__map m;

        if (molt__map_parse(line, &m) && !m.deleted && !(m.shared && m.write))
            look(c, &m);
    }
}

struct molt_json *molt_touched_collect(const struct molt_workload *w)
{
    struct collect c = {.list = molt_json_array()};

    for (size_t i = 0; i < w->procs; i++)
        look_at_process(&c, w->proc[i].pid);
    return c.list;
}

/* The kernel takes no more of what it is advised of than it would read ahead, however much that was (force_page_cache_ra in its mm/readahead.c). */
static uint64_t advise(int fd, uint64_t off, uint64_t len)
{
    for (uint64_t at = 0; at < len; at += ADVICE)
        (void)posix_fadvise(fd, (off_t)(off + at), (off_t)(len - at < ADVICE ? len - at : ADVICE), POSIX_FADV_WILLNEED);
    return len;
}

/* What the advice has not brought yet is waited for. */
static uint64_t fill(int fd, uint64_t off, uint64_t len)
{
    char room[BUFFER];
    uint64_t at = 0;
    ssize_t n = 1;

    while (at < len && n > 0) {
        n = molt_pread_all(fd, room, len - at < sizeof(room) ? len - at : sizeof(room), off + at);
        at += n > 0 ? (uint64_t)n : 0;
    }
    return at;
}

/* What fn made of the parts of a file that are listed, where the file has them: `most` bytes in all. */
static uint64_t each_range(int fd, const struct molt_json *ranges, int64_t size, uint64_t most, uint64_t (*fn)(int fd, uint64_t off, uint64_t len))
{
    uint64_t sum = 0;

    for (size_t i = 0; i + 1 < molt_json_size(ranges) && i / 2 < MOLT_TOUCHED_MAX && sum < most; i += 2) {
        const int64_t off = molt_json_intval(molt_json_at(ranges, i), -1), len = molt_json_intval(molt_json_at(ranges, i + 1), -1);

        if (off < 0 || len <= 0 || off >= size)
            continue;
        const uint64_t has = (uint64_t)(len < size - off ? len : size - off);

        sum += fn(fd, (uint64_t)off, has < most - sum ? has : most - sum);
    }
    return sum;
}

static uint64_t read_file(const char *path, const struct molt_json *ranges, uint64_t most)
{
    CLEANUP_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    struct stat st;

    if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
        return 0;
    (void)each_range(fd, ranges, st.st_size, most, advise); /* so that the disk has all of it to do at once */
    return each_range(fd, ranges, st.st_size, most, fill);
}

uint64_t molt_touched_read(const struct molt_json *v)
{
    struct sysinfo info;
    uint64_t sum = 0;

    if (sysinfo(&info) < 0)
        return 0;
    const uint64_t most = (uint64_t)info.totalram * info.mem_unit / MOLT_TOUCHED_SHARE;

    for (size_t i = 0; i < molt_json_size(v) && i < MOLT_TOUCHED_MAX && sum < most; i++) {
        const struct molt_json *o = molt_json_at(v, i);
        CLEANUP_FREE char *path = molt__path_decode(molt_json_get_string(o, "path"));

        if (path)
            sum += read_file(path, molt_json_get(o, "ranges"), most - sum);
    }
    return sum;
}
