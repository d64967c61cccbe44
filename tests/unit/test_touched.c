/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What a process has used of a file that it maps, and that reading it brings it into the cache. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "procmig/procfs.h"
#include "procmig/touched.h"

#define PAGE  4096u
#define PAGES 1024u
#define LONG  (16u * PAGES) /* holes, but for the first PAGES */

static char path[64];

static int make_file(void **state)
{
    CLEANUP_FREE char *zeroes = calloc(PAGES, PAGE);

    (void)state;
    strcpy(path, "/var/tmp/molt-touched.XXXXXX");
    CLEANUP_CLOSE int fd = mkstemp(path);

    return fd < 0 || write(fd, zeroes, PAGES * PAGE) != (ssize_t)(PAGES * PAGE) || fsync(fd) < 0 ? -1 : 0;
}

static int drop_file(void **state)
{
    (void)state;
    return unlink(path);
}

static struct molt_json *collect_self(void)
{
    struct molt_proc self = {.pid = getpid()};
    const struct molt_workload w = {.proc = &self, .procs = 1};

    return molt_touched_collect(&w);
}

/* The file's ranges; NULL: it has none. */
static const struct molt_json *ranges_of(const struct molt_json *v)
{
    CLEANUP_FREE char *coded = molt__path_encode(path);

    for (size_t i = 0; i < molt_json_size(v); i++)
        if (!strcmp(molt_json_get_string(molt_json_at(v, i), "path"), coded))
            return molt_json_get(molt_json_at(v, i), "ranges");
    return NULL;
}

static bool covers(const struct molt_json *ranges, uint64_t off)
{
    for (size_t i = 0; i + 1 < molt_json_size(ranges); i += 2) {
        uint64_t from = (uint64_t)molt_json_intval(molt_json_at(ranges, i), 0), len = (uint64_t)molt_json_intval(molt_json_at(ranges, i + 1), 0);

        if (off >= from && off < from + len)
            return true;
    }
    return false;
}

static void what_was_used_is_told(void **state)
{
    CLEANUP_CLOSE int fd = open(path, O_RDONLY);
    /* From page 256 of the file on. */
    unsigned char *map = mmap(NULL, (PAGES - 256) * PAGE, PROT_READ, MAP_PRIVATE, fd, 256 * PAGE);

    (void)state;
    assert_ptr_not_equal(map, MAP_FAILED);
    assert_int_equal(madvise(map, (PAGES - 256) * PAGE, MADV_RANDOM), 0);
    CLEANUP_JSON struct molt_json *before = collect_self();

    assert_null(ranges_of(before));
    assert_int_equal(*(volatile unsigned char *)map, 0);
    assert_int_equal(*(volatile unsigned char *)(map + 512 * PAGE), 0);
    CLEANUP_JSON struct molt_json *after = collect_self();
    const struct molt_json *ranges = ranges_of(after);

    assert_non_null(ranges);
    assert_true(covers(ranges, 256 * PAGE));
    assert_true(covers(ranges, 768 * PAGE));
    assert_false(covers(ranges, 0));
    assert_false(covers(ranges, 512 * PAGE)); /* far from both */
    munmap(map, (PAGES - 256) * PAGE);
}

static bool cached(unsigned page)
{
    CLEANUP_CLOSE int fd = open(path, O_RDONLY);
    unsigned char *map = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, fd, (off_t)page * PAGE), in = 0;

    assert_ptr_not_equal(map, MAP_FAILED);
    assert_int_equal(mincore(map, PAGE, &in), 0);
    munmap(map, PAGE);
    return in & 1;
}

/* What the other side would tell of a file; its path as it goes over the wire. */
static struct molt_json *told(const char *coded, const int64_t *numbers, size_t n)
{
    struct molt_json *v = molt_json_array(), *o = molt_json_object(), *ranges = molt_json_array();

    for (size_t i = 0; i < n; i++)
        molt_json_append(ranges, molt_json_int(numbers[i]));
    molt_json_set_string(o, "path", coded);
    molt_json_set(o, "ranges", ranges);
    molt_json_append(v, o);
    return v;
}

static void what_is_told_is_read(void **state)
{
    CLEANUP_FREE char *coded = molt__path_encode(path);
    CLEANUP_CLOSE int fd = open(path, O_RDONLY);
    const int64_t numbers[] = {64 * PAGE, 8 * PAGE, (PAGES - 1) * PAGE, 1 << 30, -5, 10, 5, -10, 7};

    CLEANUP_JSON struct molt_json *v = told(coded, numbers, sizeof(numbers) / sizeof(numbers[0]));

    (void)state;
    molt_json_append(v, molt_json_string("no object"));
    if (posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED) < 0 || cached(64))
        skip(); /* a file system that keeps it */
    assert_int_equal(molt_touched_read(v), 9 * PAGE); /* what goes past the end, to the end */
    assert_true(cached(64) && cached(71) && cached(PAGES - 1));
}

/* The kernel takes less of a piece of advice the longer it is: by default 32 pages. */
static void a_long_range_is_read_to_its_end(void **state)
{
    const int64_t numbers[] = {0, (int64_t)LONG * PAGE};
    CLEANUP_FREE char *coded = molt__path_encode(path);
    CLEANUP_JSON struct molt_json *v = told(coded, numbers, 2);
    CLEANUP_CLOSE int fd = open(path, O_RDWR);

    (void)state;
    assert_int_equal(ftruncate(fd, (off_t)LONG * PAGE), 0);
    assert_false(cached(LONG - 1));
    assert_int_equal(molt_touched_read(v), (uint64_t)LONG * PAGE);
    for (unsigned page = 0; page < LONG; page += 16)
        assert_true(cached(page));
    assert_true(cached(LONG - 1));
}

static void what_is_no_file_is_passed_over(void **state)
{
    static const char *const bad[] = {"/dev/zero", "/proc/self", "/nonexistent", "relative", ""};

    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        CLEANUP_JSON struct molt_json *v = told(bad[i], (const int64_t[]){0, PAGE}, 2);

        assert_int_equal(molt_touched_read(v), 0);
    }
    assert_int_equal(molt_touched_read(NULL), 0);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, make_file, drop_file)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(what_was_used_is_told),
        TEST(what_is_told_is_read),
        TEST(a_long_range_is_read_to_its_end),
        TEST(what_is_no_file_is_passed_over),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
