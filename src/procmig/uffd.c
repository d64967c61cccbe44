/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "procmig/uffd.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/userfaultfd.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fsio.h"
#include "base/strbuf.h"

/* Pages around a fault that come with it: they will be asked for next, and each fault costs more than the copies. */
#define AROUND 32u
#define ALONG  8u /* pages that come along, where they lie between others: less than a call more would cost */

#define FEATURES (UFFD_FEATURE_EVENT_FORK | UFFD_FEATURE_EVENT_REMAP | UFFD_FEATURE_EVENT_REMOVE | UFFD_FEATURE_EVENT_UNMAP)

int molt__uffd_possible(struct molt_error **err)
{
    CLEANUP_CLOSE int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
    struct uffdio_api api = {.api = UFFD_API, .features = FEATURES};

    if (fd < 0 || ioctl(fd, UFFDIO_API, &api) < 0)
        return molt_error_set(err, MOLT_E_UNSUPPORTED, "this kernel cannot bring pages later (userfaultfd: %s)", strerror(errno));
    return 0;
}

/* ---- what is missing ---- */

static uint64_t run_end(const struct molt__run *r)
{
    return r->addr + r->pages * MOLT_PAGE;
}

size_t molt__runs_at(const struct molt__runs *rs, uint64_t addr)
{
    size_t low = 0, high = rs->n;

    while (low < high) {
        size_t mid = low + (high - low) / 2;

        if (run_end(&rs->v[mid]) <= addr)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

static void insert(struct molt__runs *rs, size_t at, const struct molt__run *run)
{
    MOLT_GROW(rs->v, rs->n, rs->cap);
    memmove(&rs->v[at + 1], &rs->v[at], (rs->n - at) * sizeof(*rs->v));
    rs->v[at] = *run;
    rs->n++;
}

/* So that a run begins at addr, if one has it. */
static void split(struct molt__runs *rs, uint64_t addr)
{
    size_t i = molt__runs_at(rs, addr);

    if (i == rs->n || rs->v[i].addr >= addr)
        return;
    struct molt__run tail = rs->v[i];
    const uint64_t pages = (addr - tail.addr) / MOLT_PAGE;

    rs->v[i].pages = pages;
    tail.addr = addr;
    tail.off += pages * MOLT_PAGE;
    tail.pages -= pages;
    insert(rs, i + 1, &tail);
}

void molt__runs_cut(struct molt__runs *rs, uint64_t start, uint64_t end)
{
    if (start >= end)
        return;
    split(rs, start);
    split(rs, end);
    size_t first = molt__runs_at(rs, start), last = first;

    while (last < rs->n && rs->v[last].addr < end)
        last++;
    memmove(&rs->v[first], &rs->v[last], (rs->n - last) * sizeof(*rs->v));
    rs->n -= last - first;
}

void molt__runs_move(struct molt__runs *rs, uint64_t from, uint64_t to, uint64_t len)
{
    struct molt__runs moved = {NULL, 0, 0};

    split(rs, from);
    split(rs, from + len);
    for (size_t i = molt__runs_at(rs, from); i < rs->n && rs->v[i].addr < from + len; i++) {
        MOLT_GROW(moved.v, moved.n, moved.cap);
        moved.v[moved.n] = rs->v[i];
        moved.v[moved.n++].addr += to - from;
    }
    molt__runs_cut(rs, from, from + len);
    molt__runs_cut(rs, to, to + len); /* what was there is unmapped by the move */
    for (size_t i = 0; i < moved.n; i++)
        insert(rs, molt__runs_at(rs, moved.v[i].addr), &moved.v[i]);
    free(moved.v);
}

/* ---- putting pages there ---- */

enum { DONE, LATER }; /* LATER: an event is to be read before, or memory is short */

/* One call for pages or, with src NULL, zeroes. *ret_done: how many are there now; errno where that is not all. */
static bool put(int fd, uint64_t addr, const unsigned char *src, uint64_t pages, uint64_t *ret_done)
{
    int64_t bytes;
    int r;

    if (src) {
        struct uffdio_copy c = {.dst = addr, .src = (uint64_t)(uintptr_t)src, .len = pages * MOLT_PAGE};

        r = ioctl(fd, UFFDIO_COPY, &c);
        bytes = c.copy;
    } else {
        struct uffdio_zeropage z = {.range = {addr, pages * MOLT_PAGE}};

        r = ioctl(fd, UFFDIO_ZEROPAGE, &z);
        bytes = z.zeropage;
    }
    *ret_done = bytes > 0 ? (uint64_t)bytes / MOLT_PAGE : 0;
    return r == 0;
}

/* A page that is there already (touched before it was registered, or put there for another fault): whoever waits for it is woken. */
static void wake(int fd, uint64_t addr)
{
    struct uffdio_range range = {addr, MOLT_PAGE};

    (void)ioctl(fd, UFFDIO_WAKE, &range);
}

/* From addr on; *ret_done pages are settled: put there, or there already, or of no mapping any more. */
static int put_all(struct molt__mm *mm, uint64_t addr, const unsigned char *src, uint64_t pages, uint64_t *ret_done, uint64_t *count, struct molt_error **err)
{
    uint64_t done = 0, step = pages;

    while (done < pages && !mm->gone) {
        uint64_t n, want = step < pages - done ? step : pages - done;
        bool whole = put(mm->fd, addr + done * MOLT_PAGE, src ? src + done * MOLT_PAGE : NULL, want, &n);

        *count += n;
        done += n;
        if (n > 0)
            step = pages;
        if (whole || n > 0)
            continue;
        if (errno == EEXIST) {
            wake(mm->fd, addr + done * MOLT_PAGE);
            done++;
            if (!src)
                break; /* who asked goes on; zeroes around it were only for the next one to ask */
        } else if ((errno == ENOENT || errno == EINVAL) && want > 1) {
            step = want / 2; /* more than one mapping, or a part that is unmapped */
        } else if (errno == ENOENT || errno == EINVAL) {
            done++;
        } else if (errno == ESRCH) {
            mm->gone = true;
        } else if (errno == EAGAIN || errno == ENOMEM) {
            *ret_done = done;
            return LATER;
        } else if (errno != EINTR) {
            return molt_error_errno(err, "put pages at %llx", (unsigned long long)addr);
        }
    }
    *ret_done = done;
    return DONE;
}

/* Beginnings of runs at consecutive addresses, wherever they lie in the images: one call puts them there. Each call costs what ten pages do, more where each is
 * a way through a hypervisor (docs/PERFORMANCE.md). */
struct group {
    struct part {
        size_t run;
        uint64_t pages;
    } v[MOLT__PIECE];
    size_t n;
    uint64_t pages;
};

/* From run i on, up to address `high`, no less likely than `rank`, but for a few between them; `most` (and MOLT__PIECE) pages. */
static void gather(const struct molt__runs *rs, size_t i, uint64_t high, enum molt__rank rank, uint64_t most, struct group *g)
{
    uint64_t next = rs->v[i].addr;

    g->n = 0;
    g->pages = 0;
    for (; i < rs->n && rs->v[i].addr == next && next < high && g->pages < most; i++) {
        const struct molt__run *run = &rs->v[i];
        const uint64_t room = most - g->pages, upto = (high - run->addr) / MOLT_PAGE, n = upto < run->pages ? upto : run->pages;

        if (run->rank > rank && n > ALONG)
            break;
        g->v[g->n++] = (struct part){i, n < room ? n : room};
        g->pages += n < room ? n : room;
        next = run_end(run);
    }
}

/* Their pages [0, done) are there now. */
static void shorten(struct molt__run *run, uint64_t done)
{
    run->addr += done * MOLT_PAGE;
    run->off += done * MOLT_PAGE;
    run->pages -= done;
}

/* Of [from, to), those that have nothing left; what lies behind is moved once. */
static void drop_empty(struct molt__runs *rs, size_t from, size_t to)
{
    size_t n = from;

    for (size_t i = from; i < to; i++)
        if (rs->v[i].pages > 0)
            rs->v[n++] = rs->v[i];
    memmove(&rs->v[n], &rs->v[to], (rs->n - to) * sizeof(*rs->v));
    rs->n -= to - n;
}

/* The images are in memory: what is there now need not be twice. */
static void punch(const struct molt__mm *mm, const struct molt__page_files *files, const struct group *g)
{
    for (size_t i = 0, k; i < g->n; i = k) {
        const struct molt__run *first = &mm->runs.v[g->v[i].run];
        uint64_t pages = g->v[i].pages;

        for (k = i + 1; k < g->n; pages += g->v[k++].pages) {
            const struct molt__run *run = &mm->runs.v[g->v[k].run];

            if (run->file != first->file || run->off != first->off + pages * MOLT_PAGE)
                break;
        }
        (void)fallocate(files->v[first->file].fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)first->off, (off_t)(pages * MOLT_PAGE));
    }
}

/* What is copied has been read before: a page of the images that is mapped here, and not there yet, fails the kernel's copy, which is then made anew behind a
 * fault of ours. */
static int put_group(struct molt__mm *mm, struct molt__page_files *files, const struct group *g, bool discard, uint64_t *count, struct molt_error **err)
{
    const struct molt__run *run = &mm->runs.v[g->v[0].run];
    const uint64_t addr = run->addr;
    unsigned char *to = files->room;
    uint64_t done = 0;

    for (size_t i = 0; i < g->n; i++) {
        run = &mm->runs.v[g->v[i].run];
        if (molt__page_files_read(files, run->file, run->off, g->v[i].pages, to) < 0)
            return molt_error_errno(err, "read pages of the images");
        to += g->v[i].pages * MOLT_PAGE;
    }
    int r = put_all(mm, addr, files->room, g->pages, &done, count, err);

    if (r == DONE && discard)
        punch(mm, files, g);
    for (size_t i = 0; i < g->n && done > 0; i++) {
        const uint64_t n = done < g->v[i].pages ? done : g->v[i].pages;

        shorten(&mm->runs.v[g->v[i].run], n);
        done -= n;
    }
    drop_empty(&mm->runs, g->v[0].run, g->v[g->n - 1].run + 1);
    return r;
}

/* All that is missing of [low, high). */
static int put_missing(struct molt__mm *mm, struct molt__page_files *files, uint64_t low, uint64_t high, uint64_t *count, struct molt_error **err)
{
    struct group g;
    int r = DONE;

    split(&mm->runs, low);
    while (r == DONE && !mm->gone) {
        mm->hand = molt__runs_at(&mm->runs, low);
        if (mm->hand == mm->runs.n || mm->runs.v[mm->hand].addr >= high)
            break;
        gather(&mm->runs, mm->hand, high, MOLT__COLD, MOLT__PIECE, &g);
        r = put_group(mm, files, &g, false, count, err);
    }
    return r;
}

static int answer(struct molt__mm *mm, struct molt__page_files *files, uint64_t addr, struct molt__mm_count *count, struct molt_error **err)
{
    const uint64_t low = addr & ~(uint64_t)(AROUND * MOLT_PAGE - 1), high = low + AROUND * MOLT_PAGE;
    size_t i = molt__runs_at(&mm->runs, addr);
    uint64_t done;

    if (i < mm->runs.n && mm->runs.v[i].addr <= addr)
        return put_missing(mm, files, low, high, &count->pages, err);
    /* Never written, or discarded. Up to what is missing, or the end of its surroundings. */
    const uint64_t end = i < mm->runs.n && mm->runs.v[i].addr < high ? mm->runs.v[i].addr : high;

    return put_all(mm, addr, NULL, (end - addr) / MOLT_PAGE, &done, &count->zero, err);
}

static void keep_pending(struct molt__mm *mm, uint64_t addr)
{
    MOLT_GROW(mm->pending, mm->n_pending, mm->cap_pending);
    mm->pending[mm->n_pending++] = addr;
}

int molt__mm_retry(struct molt__mm *mm, struct molt__page_files *files, struct molt__mm_count *count, struct molt_error **err)
{
    size_t n = mm->n_pending;

    mm->n_pending = 0;
    for (size_t i = 0; i < n; i++) {
        int r = answer(mm, files, mm->pending[i], count, err);

        if (r < 0)
            return r;
        if (r == LATER)
            keep_pending(mm, mm->pending[i]);
    }
    return 0;
}

enum molt__rank molt__mm_rank(struct molt__mm *mm)
{
    if (mm->gone || mm->runs.n == 0)
        return MOLT__RANKS;
    for (;; mm->rank++) /* each run has a rank, so one is found */
        for (size_t k = 0; k < mm->runs.n; k++, mm->hand++) {
            mm->hand = mm->hand < mm->runs.n ? mm->hand : 0;
            if (mm->runs.v[mm->hand].rank <= mm->rank)
                return mm->rank;
        }
}

int molt__mm_push(struct molt__mm *mm, struct molt__page_files *files, uint64_t pages, bool discard, struct molt__mm_count *count, struct molt_error **err)
{
    const uint64_t most = pages < MOLT__PIECE ? pages : MOLT__PIECE;
    struct group g;

    if (molt__mm_rank(mm) == MOLT__RANKS)
        return 1;
    gather(&mm->runs, mm->hand, UINT64_MAX, mm->rank, most, &g);
    int r = put_group(mm, files, &g, discard, &count->pages, err);

    return r < 0 ? r : r == DONE;
}

/* ---- events ---- */

static struct molt__mm *forked(const struct molt__mm *mm, int fd)
{
    struct molt__mm *child = molt_xcalloc(1, sizeof(*child));

    child->fd = fd;
    child->runs.n = child->runs.cap = mm->runs.n;
    if (mm->runs.n > 0) {
        child->runs.v = molt_xcalloc(mm->runs.n, sizeof(*child->runs.v));
        memcpy(child->runs.v, mm->runs.v, mm->runs.n * sizeof(*child->runs.v));
    }
    return child;
}

int molt__mm_event(struct molt__mm *mm, struct molt__page_files *files, struct molt__mm_count *count, struct molt__mm **ret_child, struct molt_error **err)
{
    struct uffd_msg msg;
    ssize_t n = read(mm->fd, &msg, sizeof(msg));
    int r = 0;

    *ret_child = NULL;
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return 0;
    if (n != (ssize_t)sizeof(msg))
        return molt_error_errno(err, "read an event of the memory");
    switch (msg.event) {
    case UFFD_EVENT_PAGEFAULT:
        count->faults++;
        r = answer(mm, files, msg.arg.pagefault.address & ~(uint64_t)(MOLT_PAGE - 1), count, err);
        if (r == LATER)
            keep_pending(mm, msg.arg.pagefault.address & ~(uint64_t)(MOLT_PAGE - 1));
        break;
    case UFFD_EVENT_REMOVE:
    case UFFD_EVENT_UNMAP:
        molt__runs_cut(&mm->runs, msg.arg.remove.start, msg.arg.remove.end);
        break;
    case UFFD_EVENT_REMAP:
        molt__runs_move(&mm->runs, msg.arg.remap.from, msg.arg.remap.to, msg.arg.remap.len);
        break;
    case UFFD_EVENT_FORK:
        *ret_child = forked(mm, (int)msg.arg.fork.ufd);
        break;
    default:
        return molt_error_set(err, MOLT_E_PROTOCOL, "unknown event %u of the memory", msg.event);
    }
    return r < 0 ? r : 1;
}

bool molt__mm_whole(const struct molt__mm *mm)
{
    return mm->gone || (mm->runs.n == 0 && mm->n_pending == 0);
}

void molt__mm_free(struct molt__mm *mm)
{
    if (!mm)
        return;
    if (mm->fd >= 0)
        close(mm->fd);
    free(mm->runs.v);
    free(mm->pending);
    free(mm);
}
