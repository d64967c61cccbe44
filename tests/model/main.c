/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Without arguments a cmocka program of `make check`: a fixed share of seeds on each kind of file system, and the proof
 * that the model finds and shrinks. With arguments the driver for long runs: merge_model --help.
 */
#include <getopt.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "base/strbuf.h"
#include "world.h"

enum { BATCH = 40, SHRINK_TRIES = 600, MAX_FAILURES = 5 };
#define LAST_SEED 4000000000u

struct drive {
    struct setting s;
    unsigned first, last; /* seeds */
    double seconds;       /* 0: no limit but the seeds */
    unsigned batch;
    unsigned enough; /* failures */
    FILE *out;
    /* results */
    unsigned seeds, failures;
    size_t operations;
    size_t fewest; /* operations of the smallest failing case */
    struct ops smallest;
};

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void explain(struct drive *d, const struct ops *o)
{
    bool fails;
    char *error;
    d->failures++;
    struct ops small = shrink(&d->s, o, SHRINK_TRIES);
    if (small.n == 0) {
        fprintf(d->out, "seed %u fails among others, but not alone\n", o->seed);
        ops_free(&small);
        return;
    }
    fprintf(d->out, "FAILED, the fewest operations that fail, of %zu:\n", o->n);
    ops_print(d->out, &small);
    world_run(&d->s, &small, 1, &fails, d->out, &error, NULL);
    if (error)
        fprintf(d->out, "  the merge ended: %s\n", error);
    free(error);
    fflush(d->out);
    if (d->smallest.n == 0 || small.n < d->smallest.n) {
        ops_free(&d->smallest);
        d->smallest = small;
    } else {
        ops_free(&small);
    }
}

/* Seeds from, from + 2, ...: all of one answer to open conflicts. */
static void one_batch(struct drive *d, unsigned from, unsigned last)
{
    bool fails[BATCH];
    struct ops v[BATCH];
    size_t n = 0;
    char *error;
    for (unsigned seed = from; n < d->batch && seed <= last; seed += 2)
        ops_random(seed, &v[n++]);
    d->s.settle = from / 2 / d->batch % 2;
    d->s.dry = from / 4 / d->batch % 2;
    d->operations += world_run(&d->s, v, n, fails, NULL, &error, NULL);
    d->seeds += (unsigned)n;
    bool any = false;
    for (size_t i = 0; i < n; i++) {
        char *alone = NULL;
        if (error)
            world_run(&d->s, &v[i], 1, &fails[i], NULL, &alone, NULL);
        if ((fails[i] || alone) && d->failures < d->enough)
            explain(d, &v[i]);
        any |= fails[i] || alone;
        free(alone);
    }
    if (error && !any) {
        d->failures++;
        fprintf(d->out, "seeds %u to %u together: the merge ended: %s\n", from, from + 2 * (unsigned)(n - 1), error);
    }
    free(error);
    for (size_t i = 0; i < n; i++)
        ops_free(&v[i]);
}

static void drive(struct drive *d)
{
    double end = d->seconds > 0 ? now() + d->seconds : 0;
    double told = now();
    if (d->batch == 0 || d->batch > BATCH)
        d->batch = BATCH;
    d->enough = d->enough ? d->enough : MAX_FAILURES;
    for (unsigned seed = d->first; seed <= d->last && d->failures < d->enough; seed += 2 * d->batch) {
        unsigned last = d->last - seed < 2 * d->batch ? d->last : seed + 2 * d->batch - 1;
        one_batch(d, seed, last);
        if (seed + 1 <= last)
            one_batch(d, seed + 1, last);
        if (end > 0 && now() > end)
            break;
        if (now() - told > 60) {
            told = now();
            fprintf(d->out, "%u seeds, %zu operations, %u failures\n", d->seeds, d->operations, d->failures);
            fflush(d->out);
        }
    }
}

/* --- make check --- */

static void share(enum fs fs, bool recorded, unsigned seeds)
{
    const char *why = world_start(fs, recorded);
    if (why) {
        print_message("%s: skipped\n", why);
        world_end();
        skip();
    }
    struct drive d = {.s = {.fs = fs, .recorded = recorded}, .first = 1, .last = seeds, .out = stderr};
    drive(&d);
    print_message("%u seeds, %zu operations\n", d.seeds, d.operations);
    ops_free(&d.smallest);
    world_end();
    if (d.failures)
        fail_msg("%u of %u seeds are not as the model says", d.failures, d.seeds);
    assert_true(d.seeds == seeds && d.operations > seeds * 10);
}

static void directories_equal_the_model(void **state)
{
    (void)state;
    share(FS_DIRS, false, 240);
}

static void ext4_disks_equal_the_model(void **state)
{
    (void)state;
    share(FS_EXT4, false, 160);
}

static void recorded_ext4_disks_equal_the_model(void **state)
{
    (void)state;
    share(FS_EXT4, true, 80);
}

static void xfs_disks_equal_the_model(void **state)
{
    (void)state;
    share(FS_XFS, false, 80);
}

static struct op op(enum side side, unsigned phase, enum op_kind kind, const char *path, const char *to, unsigned arg)
{
    struct op o = {.kind = (uint8_t)kind, .side = (uint8_t)side, .phase = (uint8_t)phase, .arg = arg};
    snprintf(o.path, sizeof(o.path), "%s", path);
    snprintf(o.to, sizeof(o.to), "%s", to);
    return o;
}

/* Merges these operations and returns how many bytes of content came from the active. */
static uint64_t bytes_on(enum fs fs, struct op *v, size_t n)
{
    const struct ops o = {.v = v, .n = n};
    const struct setting s = {.fs = fs, .settle = true, .inodes = true};
    uint64_t bytes = 0;
    char *error = NULL;
    bool fails = false;
    const char *why = world_start(fs, false);
    if (why) {
        print_message("%s: skipped\n", why);
        world_end();
        skip();
    }
    world_run(&s, &o, 1, &fails, stderr, &error, &bytes);
    world_end();
    if (fails || error)
        fail_msg("%s", error ? error : "not as the model says");
    return bytes;
}

static uint64_t bytes_of(struct op *v, size_t n)
{
    return bytes_on(FS_EXT4, v, n);
}

/* SQLite looks whether its database still has the inode that it opened. Small, large, with holes, in one pass and again in the
 * next. What the active replaces has another inode there, too. */
static void what_was_written_in_place_keeps_its_inode(void **state)
{
    static const enum fs on[] = {FS_EXT4, FS_XFS};
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        struct op v[] = {op(BASE, 0, OP_WRITE, "act/a", "", 1),    op(BASE, 0, OP_BIG, "act/b", "", 2),       op(BASE, 0, OP_SPARSE, "act/c", "", 3),
                         op(BASE, 0, OP_WRITE, "act/d", "", 4),    op(BASE, 0, OP_WRITE, "act/e", "", 5),     op(BASE, 0, OP_BIG, "act/f", "", 6),
                         op(ACTIVE, 0, OP_APPEND, "act/a", "", 7), op(ACTIVE, 0, OP_POKE, "act/b", "", 8),    op(ACTIVE, 0, OP_APPEND, "act/c", "", 9),
                         op(ACTIVE, 0, OP_REPLACE, "act/d", "", 1), op(ACTIVE, 1, OP_APPEND, "act/a", "", 2), op(ACTIVE, 1, OP_TRUNCATE, "act/e", "", 3),
                         op(ACTIVE, 1, OP_CHMOD, "act/a", "", 4),  op(ACTIVE, 2, OP_PUNCH, "act/f", "", 5),   op(ACTIVE, 2, OP_APPEND, "act/e", "", 6)};
        bytes_on(on[i], v, sizeof(v) / sizeof(v[0]));
    }
}

/* Forty files in a directory that is renamed, below another one that is renamed in a later pass. */
static void a_renamed_tree_is_moved_not_copied(void **state)
{
    (void)state;
    struct op v[] = {op(BASE, 0, OP_MANY, "ref/a/b", "", 1), op(BASE, 0, OP_BIG, "ref/a/b/big", "", 9),
                     op(ACTIVE, 0, OP_RENAME, "ref/a", "ref/c", 0), op(ACTIVE, 0, OP_CHMOD, "ref/c/b/m7", "", 3)};
    assert_int_equal(bytes_of(v, 4), 0);
}

static void renamed_files_are_moved_though_something_else_takes_their_place(void **state)
{
    (void)state;
    struct op v[] = {op(BASE, 0, OP_BIG, "ref/log", "", 1), op(BASE, 0, OP_BIG, "ref/log.1", "", 2), /* rotated, from the end */
                     op(ACTIVE, 0, OP_RENAME, "ref/log.1", "ref/log.2", 0), op(ACTIVE, 0, OP_RENAME, "ref/log", "ref/log.1", 0),
                     op(ACTIVE, 0, OP_APPEND, "ref/log", "", 12), op(ACTIVE, 0, OP_XATTR, "ref/log.2", "", 4)};
    assert_int_equal(bytes_of(v, 6), 4); /* "+12" and a newline */
    struct op w[] = {op(BASE, 0, OP_BIG, "ref/a", "", 1), op(BASE, 0, OP_BIG, "ref/b", "", 2),
                     op(ACTIVE, 0, OP_EXCHANGE, "ref/a", "ref/b", 0)};
    assert_int_equal(bytes_of(w, 3), 0);
    struct op x[] = {op(BASE, 0, OP_BIG, "ref/a/b", "", 1), op(ACTIVE, 1, OP_RENAME, "ref/a/b", "ref/c", 0),
                     op(ACTIVE, 1, OP_RMTREE, "ref/a", "", 0), op(ACTIVE, 1, OP_WRITE, "ref/a", "", 0)};
    assert_int_equal(bytes_of(x, 4), 49);
    struct op y[] = {op(BASE, 0, OP_BIG, "ref/a", "", 1), op(ACTIVE, 0, OP_LINK, "ref/a", "act/b", 1)};
    assert_int_equal(bytes_of(y, 2), 0);
}

/* A directory takes the place of a file that is moved; then the file comes back, as it was. */
static void what_was_moved_is_not_what_comes_back(void **state)
{
    (void)state;
    struct op v[] = {op(BASE, 0, OP_WRITE, "ref/a", "", 1), op(ACTIVE, 0, OP_RENAME, "ref/a", "act/c", 1),
                     op(ACTIVE, 0, OP_MKDIR, "ref/a", "", 1), op(ACTIVE, 0, OP_CHMOD, "act/c", "", 1),
                     op(ACTIVE, 1, OP_RMTREE, "ref/a", "", 0), op(ACTIVE, 1, OP_REVERT, "ref/a", "", 1)};
    assert_int_equal(bytes_of(v, 6), 0);
}

static void what_the_upgrade_changed_is_not_moved(void **state)
{
    (void)state;
    struct op v[] = {op(BASE, 0, OP_WRITE, "ref/a", "", 1), op(ACTIVE, 0, OP_RENAME, "ref/a", "ref/b", 0),
                     op(UPGRADE, 0, OP_APPEND, "ref/a", "", 1)};
    assert_int_equal(bytes_of(v, 3), 49);
}

/* A model that is wrong in one place must be caught, and the case told by a few operations of that kind. */
static void caught(enum wrong wrong, const char *op)
{
    const char *why = world_start(FS_DIRS, false);
    if (why) {
        print_message("%s: skipped\n", why);
        world_end();
        skip();
    }
    char *text = NULL;
    size_t len = 0;
    FILE *out = open_memstream(&text, &len);
    struct drive d = {.s = {.fs = FS_DIRS, .wrong = wrong}, .first = 1, .last = 80, .out = out, .enough = 2};
    drive(&d);
    fclose(out);
    world_end();
    bool told = strstr(text, op) != NULL;
    if (d.smallest.n == 0 || d.smallest.n > 4 || !told)
        fail_msg("not caught as it should be: %u failures, %zu operations\n%s", d.failures, d.smallest.n, text);
    ops_free(&d.smallest);
    free(text);
}

static void a_wrong_model_is_caught_and_shrunk(void **state)
{
    (void)state;
    caught(WRONG_XATTRS, ": ");
    caught(WRONG_LINKS, ": link /");
    caught(WRONG_DELETED, ": ");
}

/* --- the driver --- */

static int usage(int status)
{
    fputs("usage: merge_model [--seconds N] [--seeds FIRST[-[LAST]]] [--fs dirs|ext4|xfs] [--recorded] [--batch N]\n"
          "                   [--wrong xattrs|links|deleted|time] [--print]\n"
          "  --seconds N   as many seeds as there is time for, from FIRST on\n"
          "  --seeds       these, without LAST all from FIRST on (default 1-2000)\n"
          "  --batch N     cases merged together, at most 40; 1 to see a seed alone\n"
          "  --wrong KIND  with a model that is wrong in this, to see it caught\n"
          "  --print       only print the operations of the seeds\n"
          "Exit status: 0 all equal, 1 differences, 2 usage, 77 not possible here.\n",
          status ? stderr : stdout);
    return status;
}

static bool one_of(const char *s, const char *const *names, unsigned n, unsigned *ret)
{
    for (unsigned i = 0; i < n; i++) {
        if (strcmp(s, names[i]) == 0) {
            *ret = i;
            return true;
        }
    }
    return false;
}

static bool options(int argc, char **argv, struct drive *d, bool *print)
{
    static const struct option longs[] = {{"seconds", 1, NULL, 's'}, {"seeds", 1, NULL, 'n'}, {"fs", 1, NULL, 'f'},
                                          {"recorded", 0, NULL, 'r'}, {"batch", 1, NULL, 'b'}, {"wrong", 1, NULL, 'w'},
                                          {"print", 0, NULL, 'p'}, {NULL, 0, NULL, 0}};
    static const char *const fs[] = {"dirs", "ext4", "xfs"}, *const wrong[] = {"", "xattrs", "links", "deleted", "time"};
    unsigned which = 0;
    int c;
    bool ok = true, seeds = false;
    while (ok && (c = getopt_long(argc, argv, "", longs, NULL)) >= 0) {
        char *end = NULL;
        if (c == 's') {
            d->seconds = strtod(optarg, &end);
            ok = *end == '\0' && d->seconds > 0;
        } else if (c == 'n') {
            d->first = d->last = (unsigned)strtoul(optarg, &end, 10);
            seeds = *end == '-';
            if (seeds)
                d->last = end[1] ? (unsigned)strtoul(end + 1, &end, 10) : LAST_SEED;
            end += *end == '-';
            ok = *end == '\0' && d->first <= d->last;
        } else if (c == 'f') {
            ok = one_of(optarg, fs, 3, &which);
            d->s.fs = (enum fs)which;
        } else if (c == 'w') {
            ok = one_of(optarg, wrong, 5, &which);
            d->s.wrong = (enum wrong)which;
        } else if (c == 'b') {
            d->batch = (unsigned)strtoul(optarg, &end, 10);
        } else if (c == 'r') {
            d->s.recorded = true;
        } else if (c == 'p') {
            *print = true;
        } else {
            ok = false;
        }
    }
    if (d->seconds > 0 && !seeds && d->last == 2000)
        d->last = LAST_SEED;
    return ok && optind == argc;
}

static int long_run(int argc, char **argv)
{
    struct drive d = {.first = 1, .last = 2000, .out = stdout};
    bool print = false;
    if (argc == 2 && strcmp(argv[1], "--help") == 0)
        return usage(0);
    if (!options(argc, argv, &d, &print))
        return usage(2);
    for (unsigned seed = d.first; print && seed <= d.last; seed++) {
        struct ops o;
        ops_random(seed, &o);
        ops_print(stdout, &o);
        ops_free(&o);
    }
    if (print)
        return 0;
    const char *why = world_start(d.s.fs, d.s.recorded);
    if (why) {
        fprintf(stderr, "merge_model: %s\n", why);
        return 77;
    }
    double start = now();
    drive(&d);
    world_end();
    printf("%u seeds, %zu operations, %u failures, %.0f s\n", d.seeds, d.operations, d.failures, now() - start);
    ops_free(&d.smallest);
    return d.failures ? 1 : 0;
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(directories_equal_the_model),         cmocka_unit_test(ext4_disks_equal_the_model),
        cmocka_unit_test(recorded_ext4_disks_equal_the_model), cmocka_unit_test(xfs_disks_equal_the_model),
        cmocka_unit_test(what_was_written_in_place_keeps_its_inode),
        cmocka_unit_test(a_renamed_tree_is_moved_not_copied),  cmocka_unit_test(what_the_upgrade_changed_is_not_moved),
        cmocka_unit_test(what_was_moved_is_not_what_comes_back),
        cmocka_unit_test(renamed_files_are_moved_though_something_else_takes_their_place),
        cmocka_unit_test(a_wrong_model_is_caught_and_shrunk),
    };
    return argc > 1 ? long_run(argc, argv) : cmocka_run_group_tests_name("tests", tests, NULL, NULL);
}
