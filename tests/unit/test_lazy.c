/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Which pages a restore leaves out, and where they lie. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "lazy_util.h"
#include "procmig/pointed.h"
#include "procmig/uffd.h"

#define PID  77
#define A    UINT64_C(0x7f0000000000)
#define AT(page) (A + (uint64_t)(page) * MOLT_PAGE)
#define N(v) (sizeof(v) / sizeof((v)[0]))
#define ANON (MAP_ANONYMOUS | MAP_PRIVATE)

static char dir[32], before[64];

static int make_dir(void **state)
{
    CLEANUP_FREE char *link = NULL;

    (void)state;
    strcpy(dir, "/tmp/molt-lazy.XXXXXX");
    if (!mkdtemp(dir))
        return -1;
    snprintf(before, sizeof(before), "%s/pre1", dir);
    link = molt_xasprintf("%s/parent", dir);
    return molt_mkdir_p(before, 0700, NULL) < 0 ? -1 : symlink("pre1", link);
}

static int drop_dir(void **state)
{
    (void)state;
    return molt_remove_tree(dir, NULL);
}

static struct molt__runs runs_of(struct molt__page_files *files)
{
    struct molt__runs runs = {NULL, 0, 0};

    assert_int_equal(molt__lazy_runs(dir, PID, files, &runs, NULL), 0);
    return runs;
}

/* Pages 0 to 7 are memory, 8 to 11 a file's, 12 to 15 memory again; the round before has all of them, the last images 2, 3 and 9. */
static void lay_images(void)
{
    const struct vma vma[] = {{AT(0), AT(8), ANON, 0}, {AT(8), AT(12), MAP_PRIVATE, 0}, {AT(12), AT(16), ANON, 0}};
    const struct pe old[] = {{AT(0), 16, PRESENT | LAZY}},
                    now[] = {{AT(0), 2, PARENT}, {AT(2), 2, PRESENT | LAZY}, {AT(4), 5, PARENT}, {AT(9), 1, PRESENT}, {AT(10), 6, PARENT}};

    put_mm(dir, PID, vma, N(vma));
    put_pagemap(before, PID, old, N(old));
    put_pages(before, 100, 16);
    put_pagemap(dir, PID, now, N(now));
    put_pages(dir, 200, 3);
}

static void expect_run(const struct molt__runs *rs, size_t i, uint64_t addr, uint64_t pages, const struct molt__page_files *files, uint64_t first)
{
    assert_true(i < rs->n);
    assert_int_equal(rs->v[i].addr, addr);
    assert_int_equal(rs->v[i].pages, pages);
    uint64_t there;

    assert_int_equal(pread(files->v[rs->v[i].file].fd, &there, sizeof(there), (off_t)rs->v[i].off), sizeof(there));
    assert_int_equal(there, first);
}

static void what_came_before_waits_and_the_last_does_not(void **state)
{
    struct molt__page_files files = {0};
    struct molt_lazy_count count;

    (void)state;
    lay_images();
    assert_int_equal(molt_lazy_mark(dir, 1 << 20, 0, &count, NULL), 0);
    assert_int_equal(count.eager, 2);
    assert_int_equal(count.lazy, 10); /* 0, 1, 4 to 7, 12 to 15: a file's never */
    struct molt__runs rs = runs_of(&files);

    assert_int_equal(rs.n, 3);
    expect_run(&rs, 0, AT(0), 2, &files, 100);
    expect_run(&rs, 1, AT(4), 4, &files, 104);
    expect_run(&rs, 2, AT(12), 4, &files, 112);
    free(rs.v);
    molt__page_files_close(&files);
}

static void a_last_dump_too_large_waits_too(void **state)
{
    struct molt__page_files files = {0};
    struct molt_lazy_count count;

    (void)state;
    lay_images();
    assert_int_equal(molt_lazy_mark(dir, MOLT_PAGE, 0, &count, NULL), 0);
    assert_int_equal(count.eager, 0);
    assert_int_equal(count.lazy, 12);
    struct molt__runs rs = runs_of(&files);

    assert_int_equal(rs.n, 4);
    expect_run(&rs, 1, AT(2), 2, &files, 200);
    free(rs.v);
    molt__page_files_close(&files);
}

/* Two rounds: the first has all. A large mapping, of which the second round had one page more; a small one; one with a program. */
static void the_likeliest_come_first(void **state)
{
    const uint64_t large = 1024;
    const struct vma vma[] = {{AT(0), AT(large), ANON, 0}, {AT(large), AT(large + 4), ANON, 0}, {AT(large + 4), AT(large + 8), ANON, PROT_READ | PROT_EXEC}};
    const struct pe all[] = {{AT(0), 8, PRESENT | LAZY}, {AT(large), 8, PRESENT | LAZY}},
                    second[] = {{AT(0), 3, PARENT}, {AT(3), 1, PRESENT | LAZY}, {AT(4), 4, PARENT}, {AT(large), 8, PARENT}},
                    now[] = {{AT(0), 8, PARENT}, {AT(large), 8, PARENT}};
    const enum molt__rank want[] = {MOLT__COLD, MOLT__HOT, MOLT__COLD, MOLT__WARM, MOLT__HOT};
    struct molt__page_files files = {0};
    CLEANUP_FREE char *first = molt_xasprintf("%s/pre0", dir), *link = molt_xasprintf("%s/parent", before);
    struct molt_lazy_count count;

    (void)state;
    assert_int_equal(molt_mkdir_p(first, 0700, NULL), 0);
    assert_int_equal(symlink("../pre0", link), 0);
    put_mm(dir, PID, vma, N(vma));
    put_pagemap(first, PID, all, N(all));
    put_pages(first, 100, 16);
    put_pagemap(before, PID, second, N(second));
    put_pages(before, 200, 1);
    put_pagemap(dir, PID, now, N(now));
    put_pages(dir, 300, 0);
    assert_int_equal(molt_lazy_mark(dir, 1 << 20, 0, &count, NULL), 0);
    assert_int_equal(count.lazy, 16);
    struct molt__runs rs = runs_of(&files);

    assert_int_equal(rs.n, N(want));
    for (size_t i = 0; i < N(want); i++)
        assert_int_equal(rs.v[i].rank, want[i]);
    expect_run(&rs, 1, AT(3), 1, &files, 200);
    expect_run(&rs, 4, AT(large + 4), 4, &files, 112);
    /* In that order, wherever they lie. */
    struct molt__mm mm = {.fd = -1, .runs = rs};

    for (size_t i = 0; i < N(want); i++) {
        assert_int_equal(molt__mm_rank(&mm), i < 2 ? MOLT__HOT : i == 2 ? MOLT__WARM : MOLT__COLD);
        molt__runs_cut(&mm.runs, mm.runs.v[mm.hand].addr, mm.runs.v[mm.hand].addr + mm.runs.v[mm.hand].pages * MOLT_PAGE);
    }
    assert_int_equal(molt__mm_rank(&mm), MOLT__RANKS);
    free(mm.runs.v);
    molt__page_files_close(&files);
    /* And in the pause, where so many are allowed: a program, and the page that was written again. */
    for (size_t i = 0; i < 2; i++) {
        put_pagemap(dir, PID, now, N(now));
        assert_int_equal(molt_lazy_mark(dir, 1 << 20, (4 + i) * MOLT_PAGE, &count, NULL), 0);
        assert_int_equal(count.eager, i == 0 ? 0 : 5);
        assert_int_equal(count.lazy, i == 0 ? 16 : 11);
    }
    files = (struct molt__page_files){0};
    rs = runs_of(&files);
    assert_int_equal(rs.n, 3);
    expect_run(&rs, 0, AT(0), 3, &files, 100);
    expect_run(&rs, 1, AT(4), 4, &files, 104);
    expect_run(&rs, 2, AT(large), 4, &files, 108);
    free(rs.v);
    molt__page_files_close(&files);
}

/* As much as is allowed, by ranks: all, or programs and small mappings, or programs. */
static void of_what_came_before_a_little_does_not_wait(void **state)
{
    const uint64_t large = 1024, allowed[] = {16, 15, 8, 7, 4, 3, 0}, lazy[] = {0, 8, 8, 12, 12, 16, 16};
    const struct vma vma[] = {{AT(0), AT(large), ANON, 0}, {AT(large), AT(large + 4), ANON, 0}, {AT(large + 4), AT(large + 8), ANON, PROT_READ | PROT_EXEC}};
    const struct pe all[] = {{AT(0), 8, PRESENT | LAZY}, {AT(large), 8, PRESENT | LAZY}}, now[] = {{AT(0), 8, PARENT}, {AT(large), 8, PARENT}};
    struct molt_lazy_count count;

    (void)state;
    put_mm(dir, PID, vma, N(vma));
    put_pagemap(before, PID, all, N(all));
    put_pages(before, 100, 16);
    put_pages(dir, 300, 0);
    for (size_t i = 0; i < N(allowed); i++) {
        put_pagemap(dir, PID, now, N(now));
        assert_int_equal(molt_lazy_mark(dir, 1 << 20, allowed[i] * MOLT_PAGE, &count, NULL), 0);
        assert_int_equal(count.lazy, lazy[i]);
        assert_int_equal(count.eager, 16 - lazy[i]);
    }
}

/* What is left of the amount is for the smaller of the large mappings, of all processes; of one nothing, or all. */
static void of_what_is_left_the_smaller_mappings_do_not_wait(void **state)
{
    const struct vma one[] = {{AT(0), AT(2048), ANON, 0}, {AT(2048), AT(2048 + 512), ANON, 0}, {AT(4096), AT(4100), ANON, 0}}, two[] = {{AT(0), AT(512), ANON, 0}, {AT(512), AT(512 + 600), ANON, 0}};
    const struct pe old[] = {{AT(0), 100, PRESENT | LAZY}, {AT(2048), 10, PRESENT | LAZY}, {AT(4096), 4, PRESENT | LAZY}}, other[] = {{AT(0), 20, PRESENT | LAZY}, {AT(512), 40, PRESENT | LAZY}},
                    now[] = {{AT(0), 100, PARENT}, {AT(2048), 10, PARENT}, {AT(4096), 4, PARENT}}, now_other[] = {{AT(0), 20, PARENT}, {AT(512), 40, PARENT}};
    /* Pages allowed, and what comes of it: nothing; the small mapping; that alone, since the two of 512 belong together; these, too; that of 600; all. */
    const struct {
        unsigned allowed, eager;
    } t[] = {{3, 0}, {4, 4}, {33, 4}, {34, 34}, {73, 34}, {74, 74}, {173, 74}, {174, 174}};

    (void)state;
    for (size_t i = 0; i < N(t); i++) {
        struct molt_lazy_count count;

        put_mm(dir, PID, one, N(one));
        put_mm(dir, PID + 1, two, N(two));
        put_pagemap(before, PID, old, N(old));
        put_pagemap(before, PID + 1, other, N(other));
        put_pagemap(dir, PID, now, N(now));
        put_pagemap(dir, PID + 1, now_other, N(now_other));
        assert_int_equal(molt_lazy_mark(dir, 1 << 20, t[i].allowed * MOLT_PAGE, &count, NULL), 0);
        assert_int_equal(count.eager, t[i].eager);
        assert_int_equal(count.lazy, 174 - t[i].eager);
    }
}

/* Pages of a heap that threads point to, as the last round that knew says: before small mappings, behind what was written again. */
static void what_threads_point_to_does_not_wait(void **state)
{
    const uint64_t large = 1024;
    const struct vma vma[] = {{AT(0), AT(large), ANON, 0}, {AT(large), AT(large + 4), ANON, 0}};
    const struct pe old[] = {{AT(0), 100, PRESENT | LAZY}, {AT(large), 4, PRESENT | LAZY}}, now[] = {{AT(0), 3, PRESENT | LAZY}, {AT(3), 97, PARENT}, {AT(large), 4, PARENT}};
    /* One that the last images have, two next to each other, one alone, one of a mapping that is small, one of none. */
    struct {
        char magic[8];
        uint64_t page[6];
    } pointed = {.page = {AT(1), AT(10), AT(11), AT(50), AT(large + 1), AT(large + 100)}};
    const struct {
        unsigned allowed, eager;
    } t[] = {{2, 3}, {3, 6}, {6, 6}, {7, 10}};
    const enum molt__rank want[] = {MOLT__COLD, MOLT__POINTED, MOLT__COLD, MOLT__POINTED, MOLT__COLD, MOLT__WARM};
    CLEANUP_FREE char *path = molt_xasprintf("%s/pointed-%d.img", before, PID);
    struct molt__page_files files = {0};
    struct molt_lazy_count count;

    (void)state;
    memcpy(pointed.magic, MOLT__POINTED_MAGIC, sizeof(pointed.magic));
    assert_int_equal(molt_write_file(path, &pointed, sizeof(pointed), 0600, NULL), 0);
    put_mm(dir, PID, vma, N(vma));
    put_pagemap(before, PID, old, N(old));
    put_pages(before, 100, 104);
    put_pages(dir, 300, 3);
    for (size_t i = 0; i < N(t); i++) {
        put_pagemap(dir, PID, now, N(now));
        assert_int_equal(molt_lazy_mark(dir, 1 << 20, t[i].allowed * MOLT_PAGE, &count, NULL), 0);
        assert_int_equal(count.eager, t[i].eager);
        assert_int_equal(count.lazy, 104 - t[i].eager);
    }
    /* Where it does wait, it is brought in that order. */
    put_pagemap(dir, PID, now, N(now));
    assert_int_equal(molt_lazy_mark(dir, 1 << 20, 0, &count, NULL), 0);
    struct molt__runs rs = runs_of(&files);

    assert_int_equal(rs.n, N(want));
    for (size_t i = 0; i < N(want); i++)
        assert_int_equal(rs.v[i].rank, want[i]);
    expect_run(&rs, 1, AT(10), 2, &files, 110);
    expect_run(&rs, 3, AT(50), 1, &files, 150);
    free(rs.v);
    molt__page_files_close(&files);
    /* What is no such list is not believed. */
    pointed.page[5] = 1;
    assert_int_equal(molt_write_file(path, &pointed, sizeof(pointed), 0600, NULL), 0);
    put_pagemap(dir, PID, now, N(now));
    assert_int_equal(molt_lazy_mark(dir, 1 << 20, 0, &count, NULL), MOLT_E_PROTOCOL);
}

/* Marked again (a second try) it is the same. */
static void marking_twice_is_marking_once(void **state)
{
    CLEANUP_FREE char *path = molt_xasprintf("%s/pagemap-%d.img", dir, PID), *once = NULL, *twice = NULL;
    struct molt_lazy_count count;
    size_t n, m;

    (void)state;
    lay_images();
    assert_int_equal(molt_lazy_mark(dir, 1 << 20, 0, &count, NULL), 0);
    assert_int_equal(molt_read_file(path, 1 << 20, &once, &n, NULL), 0);
    assert_int_equal(molt_lazy_mark(dir, 1 << 20, 0, &count, NULL), 0);
    assert_int_equal(molt_read_file(path, 1 << 20, &twice, &m, NULL), 0);
    assert_int_equal(n, m);
    assert_memory_equal(once, twice, n);
}

static char *content_of(int pid, size_t *n)
{
    CLEANUP_FREE char *path = molt_xasprintf("%s/pagemap-%d.img", dir, pid);
    char *text;

    assert_int_equal(molt_read_file(path, 1 << 20, &text, n, NULL), 0);
    return text;
}

static void expect_content(int pid, const char *want, size_t len)
{
    size_t n;
    CLEANUP_FREE char *text = content_of(pid, &n);

    assert_int_equal(n, len);
    assert_memory_equal(text, want, n);
}

/* A second process whose own pages are too many together with the first one's, or not, and of whose earlier ones the programs are. */
static void lay_second(unsigned own)
{
    const struct vma vma[] = {{AT(0), AT(64), ANON, 0}, {AT(64), AT(72), ANON, PROT_READ | PROT_EXEC}};
    const struct pe old[] = {{AT(0), 72, PRESENT | LAZY}}, now[] = {{AT(0), own, PRESENT | LAZY}, {AT(own), 72 - own, PARENT}};

    put_mm(dir, PID + 1, vma, N(vma));
    put_pagemap(before, PID + 1, old, N(old));
    put_pagemap(dir, PID + 1, now, N(now));
}

static int comes(struct molt_marking *m, const char *image, int pid)
{
    CLEANUP_FREE char *name = molt_xasprintf("%s-%d.img", image, pid);

    return molt_marking_take(m, name, NULL);
}

static void come(struct molt_marking *m, int pid)
{
    assert_int_equal(comes(m, "pagemap", pid), 0);
    assert_int_equal(comes(m, "mm", pid), 0);
}

/* As they come, in either order, what was decided for the first is decided anew with the second. */
static void marking_as_they_come_is_marking_once(void **state)
{
    const unsigned own[] = {1, 40};

    (void)state;
    for (unsigned k = 0; k < 4; k++) {
        const uint64_t own_max = 8 * MOLT_PAGE, before_max = 12 * MOLT_PAGE;
        struct molt_lazy_count want, count;
        size_t n[2];

        lay_images();
        lay_second(own[k / 2]);
        assert_int_equal(molt_lazy_mark(dir, own_max, before_max, &want, NULL), 0);
        CLEANUP_FREE char *first = content_of(PID, &n[0]), *second = content_of(PID + 1, &n[1]);

        lay_images();
        lay_second(own[k / 2]);
        struct molt_marking *m = molt_marking_new(dir, own_max, before_max);

        come(m, PID + k % 2);
        come(m, PID + 1 - k % 2);
        assert_int_equal(molt_marking_end(m, &count, NULL), 0);
        molt_marking_free(m);
        assert_int_equal(count.eager, want.eager);
        assert_int_equal(count.lazy, want.lazy);
        expect_content(PID, first, n[0]);
        expect_content(PID + 1, second, n[1]);
    }
}

static void expect_as_written(const char *path, const struct stat *then, bool same)
{
    struct stat now;

    assert_int_equal(stat(path, &now), 0);
    assert_int_equal(now.st_mtim.tv_nsec == then->st_mtim.tv_nsec && now.st_size == then->st_size, same);
}

/* One image of the two is not enough, also when the other one is there: it may be half of it. Nor is what came in its place meanwhile. */
static void what_is_not_whole_is_left_alone(void **state)
{
    CLEANUP_FREE char *path = molt_xasprintf("%s/pagemap-%d.img", dir, PID);
    struct molt_marking *m = molt_marking_new(dir, 1 << 20, 0);
    struct molt_lazy_count count;
    struct stat st;

    (void)state;
    lay_images();
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(comes(m, "mm", PID), 0);
    expect_as_written(path, &st, true);
    assert_int_equal(comes(m, "pagemap", PID + 1), 0); /* nobody's */
    assert_int_equal(comes(m, "pages", PID), 0);
    expect_as_written(path, &st, true);
    assert_int_equal(comes(m, "pagemap", PID), 0);
    expect_as_written(path, &st, false);
    assert_int_equal(unlink(path), 0);
    lay_images();
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(comes(m, "mm", PID), 0);
    expect_as_written(path, &st, true);
    assert_int_equal(molt_marking_end(m, &count, NULL), 0);
    assert_int_equal(count.lazy, 10);
    molt_marking_free(m);
}

/* One that comes again counts as it is at the end; what was marked already is not touched again. */
static void what_comes_again_is_read_again(void **state)
{
    CLEANUP_FREE char *path = molt_xasprintf("%s/pagemap-%d.img", dir, PID);
    const struct pe now[] = {{AT(0), 3, PRESENT | LAZY}, {AT(3), 13, PARENT}};
    struct molt_marking *m = molt_marking_new(dir, 1 << 20, 0);
    struct molt_lazy_count count;
    struct stat st;

    (void)state;
    lay_images();
    come(m, PID);
    assert_int_equal(stat(path, &st), 0);
    come(m, PID); /* the word of what it wrote itself */
    assert_int_equal(molt_marking_end(m, &count, NULL), 0);
    expect_as_written(path, &st, true);
    assert_int_equal(count.lazy, 10);
    assert_int_equal(unlink(path), 0);
    put_pagemap(dir, PID, now, N(now));
    assert_int_equal(molt_marking_end(m, &count, NULL), 0);
    assert_int_equal(count.eager, 3);
    assert_int_equal(count.lazy, 9);
    molt_marking_free(m);
}

/* What could not be taken is not forgotten. */
static void what_was_bad_early_is_bad_at_the_end(void **state)
{
    CLEANUP_ERROR struct molt_error *e = NULL;
    const struct pe backwards[] = {{AT(4), 1, PRESENT}, {AT(0), 1, PRESENT}};
    struct molt_lazy_count count;

    (void)state;
    lay_images();
    put_pagemap(dir, PID, backwards, N(backwards));
    struct molt_marking *m = molt_marking_new(dir, 1 << 20, 0);

    assert_int_equal(comes(m, "mm", PID), 0);
    assert_true(comes(m, "pagemap", PID) < 0);
    assert_int_equal(molt_marking_end(m, &count, &e), MOLT_E_PROTOCOL);
    molt_marking_free(m);
}

static void refused(int r, struct molt_error **e)
{
    assert_int_equal(r, MOLT_E_PROTOCOL);
    molt_error_clear(e);
}

static void images_that_cannot_be_are_refused(void **state)
{
    CLEANUP_ERROR struct molt_error *e = NULL;
    const struct pe backwards[] = {{AT(4), 1, PRESENT}, {AT(0), 1, PRESENT}}, none[] = {{AT(0), 1, PRESENT}, {AT(3), 0, PRESENT}},
                    round_the_end[] = {{UINT64_MAX - MOLT_PAGE + 1, 2, PRESENT}}, odd[] = {{AT(0) + 5, 1, PRESENT}};
    const struct vma overlap[] = {{AT(0), AT(8), ANON, 0}, {AT(7), AT(9), ANON, 0}};
    struct molt_lazy_count count;
    const struct {
        const struct pe *v;
        size_t n;
    } bad[] = {{backwards, N(backwards)}, {none, N(none)}, {round_the_end, N(round_the_end)}, {odd, N(odd)}};

    (void)state;
    lay_images();
    for (size_t i = 0; i < N(bad); i++) {
        put_pagemap(dir, PID, bad[i].v, bad[i].n);
        refused(molt_lazy_mark(dir, 1 << 20, 0, &count, &e), &e);
    }
    lay_images();
    put_mm(dir, PID, overlap, N(overlap));
    refused(molt_lazy_mark(dir, 1 << 20, 0, &count, &e), &e);
}

static void pages_that_nobody_has_are_refused(void **state)
{
    const struct pe short_one[] = {{AT(0), 6, PRESENT}};
    struct molt__page_files files = {0};
    struct molt__runs rs = {NULL, 0, 0};
    struct molt_lazy_count count;

    (void)state;
    lay_images();
    put_pagemap(before, PID, short_one, 1);
    assert_int_equal(molt_lazy_mark(dir, 1 << 20, 0, &count, NULL), 0);
    assert_int_equal(molt__lazy_runs(dir, PID, &files, &rs, NULL), MOLT_E_PROTOCOL);
    molt__page_files_close(&files);
    lay_images();
    put_pages(before, 100, 10); /* and its pagemap says 16 */
    assert_int_equal(molt_lazy_mark(dir, 1 << 20, 0, &count, NULL), 0);
    rs.n = 0;
    assert_int_equal(molt__lazy_runs(dir, PID, &files, &rs, NULL), MOLT_E_PROTOCOL);
    free(rs.v);
    molt__page_files_close(&files);
}

/* More files than windows, in any order, over the windows' edges and up to the files' ends. */
static void pages_are_read_whatever_was_read_before(void **state)
{
    enum { FILES = MOLT__WINDOWS + 3, LENGTH = 3 * MOLT__WINDOW_PAGES + 5 };
    struct molt__page_files files = {0};
    struct molt__page_file v[FILES];
    uint64_t got[MOLT__PIECE * MOLT_PAGE / sizeof(uint64_t)];

    (void)state;
    for (unsigned i = 0; i < FILES; i++) {
        CLEANUP_FREE char *path = molt_xasprintf("%s/pages-1.img", dir);

        put_pages(dir, 1000 * i, LENGTH);
        v[i] = (struct molt__page_file){.fd = open(path, O_RDONLY | O_CLOEXEC), .len = LENGTH * MOLT_PAGE};
        assert_true(v[i].fd >= 0);
        assert_int_equal(unlink(path), 0);
    }
    files.v = v;
    files.n = FILES;
    molt__page_files_room(&files);
    srand(7);
    for (unsigned k = 0; k < 2000; k++) {
        const unsigned file = (unsigned)rand() % FILES, first = (unsigned)rand() % LENGTH, most = LENGTH - first < MOLT__PIECE ? LENGTH - first : MOLT__PIECE,
                       pages = 1 + (unsigned)rand() % most;

        assert_int_equal(molt__page_files_read(&files, file, first * MOLT_PAGE, pages, (unsigned char *)got), 0);
        for (unsigned i = 0; i < pages; i++) {
            const uint64_t *page = got + i * MOLT_PAGE / sizeof(*got);

            assert_int_equal(page[0], 1000 * file + first + i);
            assert_int_equal(page[MOLT_PAGE / 8 - 1], 1000 * file + first + i);
        }
    }
    for (unsigned i = 0; i < MOLT__WINDOWS; i++)
        files.windows[i].pages = 0;
    v[1].len = 2 * LENGTH * MOLT_PAGE; /* and it has no more than LENGTH */
    assert_int_equal(molt__page_files_read(&files, 1, (LENGTH - 1) * MOLT_PAGE, 2, (unsigned char *)got), -1);
    assert_int_equal(errno, EIO);
    for (unsigned i = 0; i < FILES; i++)
        close(v[i].fd);
    free(files.room);
}

static void runs_follow_what_is_unmapped_and_moved(void **state)
{
    struct molt__run all[] = {{.addr = AT(0), .pages = 10}, {.addr = AT(20), .pages = 10, .off = 10 * MOLT_PAGE}};
    struct molt__runs rs = {molt_xcalloc(2, sizeof(*all)), 2, 2};

    (void)state;
    memcpy(rs.v, all, sizeof(all));
    molt__runs_cut(&rs, AT(4), AT(6)); /* 0-4, 6-10, 20-30 */
    assert_int_equal(rs.n, 3);
    assert_int_equal(rs.v[1].addr, AT(6));
    assert_int_equal(rs.v[1].off, 6 * MOLT_PAGE);
    assert_int_equal(rs.v[1].pages, 4);
    molt__runs_move(&rs, AT(2), AT(22), 6 * MOLT_PAGE); /* 2, 3 to 22, 23; 6, 7 to 26, 27; what was at 22 to 27 is gone */
    assert_int_equal(rs.n, 6);
    const uint64_t addr[] = {0, 8, 20, 22, 26, 28}, pages[] = {2, 2, 2, 2, 2, 2}, off[] = {0, 8, 10, 2, 6, 18};

    for (size_t i = 0; i < 6; i++) {
        assert_int_equal(rs.v[i].addr, AT(addr[i]));
        assert_int_equal(rs.v[i].pages, pages[i]);
        assert_int_equal(rs.v[i].off, off[i] * MOLT_PAGE);
    }
    assert_int_equal(molt__runs_at(&rs, AT(23)), 3);
    assert_int_equal(molt__runs_at(&rs, AT(24)), 4);
    assert_int_equal(molt__runs_at(&rs, AT(40)), 6);
    molt__runs_cut(&rs, AT(0), AT(100));
    assert_int_equal(rs.n, 0);
    free(rs.v);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, make_dir, drop_dir)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(what_came_before_waits_and_the_last_does_not),
        TEST(a_last_dump_too_large_waits_too),
        TEST(the_likeliest_come_first),
        TEST(of_what_came_before_a_little_does_not_wait),
        TEST(of_what_is_left_the_smaller_mappings_do_not_wait),
        TEST(what_threads_point_to_does_not_wait),
        TEST(marking_twice_is_marking_once),
        TEST(marking_as_they_come_is_marking_once),
        TEST(what_is_not_whole_is_left_alone),
        TEST(what_comes_again_is_read_again),
        TEST(what_was_bad_early_is_bad_at_the_end),
        TEST(images_that_cannot_be_are_refused),
        TEST(pages_that_nobody_has_are_refused),
        TEST(pages_are_read_whatever_was_read_before),
        cmocka_unit_test(runs_follow_what_is_unmapped_and_moved),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
