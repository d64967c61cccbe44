/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Large files that change in part: only the differences come, and the result is the active's file all the same. */
#include "test_merge_util.h"

#define BLOCK MOLT_PACK_BLOCK
#define SIZE  (16u * BLOCK)

static void fill(unsigned char *p, size_t n, unsigned seed)
{
    for (size_t i = 0; i < n; i++)
        p[i] = (unsigned char)((seed = seed * 1103515245u + 12345u) >> 16);
}

static void write_at(int at, const char *path, const void *p, size_t n, uint64_t off)
{
    int fd = openat(at, path, O_WRONLY | O_CREAT, 0644);
    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, p, n, (off_t)off), n);
    close(fd);
}

static void cut(int at, const char *path, uint64_t size)
{
    int fd = openat(at, path, O_WRONLY);
    assert_int_equal(ftruncate(fd, (off_t)size), 0);
    close(fd);
}

static void assert_same(const struct trees *t, const char *path)
{
    struct stat sa, su;
    int a = openat(t->a, path, O_RDONLY), u = openat(t->u, path, O_RDONLY);
    assert_true(a >= 0 && u >= 0);
    assert_int_equal(fstat(a, &sa), 0);
    assert_int_equal(fstat(u, &su), 0);
    assert_int_equal(sa.st_size, su.st_size);
    assert_int_equal(sa.st_mtim.tv_sec, su.st_mtim.tv_sec);
    assert_int_equal(sa.st_mtim.tv_nsec, su.st_mtim.tv_nsec);
    CLEANUP_FREE char *x = molt_xmalloc((size_t)sa.st_size + 1), *y = molt_xmalloc((size_t)sa.st_size + 1);
    assert_int_equal(pread(a, x, (size_t)sa.st_size, 0), sa.st_size);
    assert_int_equal(pread(u, y, (size_t)sa.st_size, 0), sa.st_size);
    assert_memory_equal(x, y, (size_t)sa.st_size);
    close(a);
    close(u);
}

static ino_t inode_of(int at, const char *path)
{
    struct stat st;
    assert_int_equal(fstatat(at, path, &st, 0), 0);
    return st.st_ino;
}

static void start(struct trees *t, struct session *ss)
{
    CLEANUP_FREE unsigned char *buf = molt_xmalloc(SIZE);
    fill(buf, SIZE, 1);
    trees_make(t);
    write_at(t->a, "data", buf, SIZE, 0);
    session_start(ss, t, NULL, MOLT_ON_CONFLICT_REFUSE);
    session_pass(ss);
    assert_int_equal(ss->stats.bytes, SIZE);
    assert_same(t, "data");
}

static void end(struct trees *t, struct session *ss)
{
    session_end(ss);
    trees_remove(t);
}

static void only_what_changed(void **s)
{
    (void)s;
    struct trees t;
    struct session ss;
    char tail[100];
    start(&t, &ss);
    ino_t ino = inode_of(t.u, "data");
    write_at(t.a, "data", "changed", 7, 5 * BLOCK + 11);
    memset(tail, 'x', sizeof(tail));
    write_at(t.a, "data", tail, sizeof(tail), SIZE);
    session_pass(&ss);
    assert_int_equal(ss.stats.bytes, BLOCK + sizeof(tail));
    assert_same(&t, "data");
    assert_int_equal(inode_of(t.u, "data"), ino);
    cut(t.a, "data", 9 * BLOCK - 5);
    session_pass(&ss);
    assert_int_equal(ss.stats.bytes, BLOCK - 5);
    assert_same(&t, "data");
    end(&t, &ss);
}

/* Holes on the active's side over data on this one. */
static void holes_come_as_zeros(void **s)
{
    (void)s;
    struct trees t;
    struct session ss;
    start(&t, &ss);
    cut(t.a, "data", 2 * BLOCK);
    cut(t.a, "data", SIZE);
    session_pass(&ss);
    assert_same(&t, "data");
    end(&t, &ss);
}

/* What has another name, is a program, or has holes here, comes whole and as a new file. */
static void whole_where_in_place_would_show(void **s)
{
    (void)s;
    struct trees t;
    struct session ss;
    start(&t, &ss);
    ino_t ino = inode_of(t.u, "data");
    assert_int_equal(linkat(t.u, "data", t.u, "other", 0), 0);
    write_at(t.a, "data", "changed", 7, BLOCK);
    session_pass(&ss);
    assert_int_equal(ss.stats.bytes, SIZE);
    assert_same(&t, "data");
    assert_true(inode_of(t.u, "data") != ino && inode_of(t.u, "other") == ino);

    assert_int_equal(fchmodat(t.a, "data", 0755, 0), 0);
    write_at(t.a, "data", "again", 5, BLOCK);
    session_pass(&ss);
    assert_int_equal(ss.stats.bytes, SIZE);
    assert_same(&t, "data");
    end(&t, &ss);
}

static void meddle(void *ctx, enum molt_merge_question q)
{
    const struct trees *t = ctx;
    if (q == MOLT_MERGE_Q_PACK)
        write_at(t->u, "data", "mine", 4, 0);
}

static void changed_under_the_merge(void **s)
{
    (void)s;
    struct trees t;
    struct session ss;
    start(&t, &ss);
    write_at(t.a, "data", "changed", 7, BLOCK);
    ss.peer.before = meddle;
    ss.peer.ctx = &t;
    assert_code(MOLT_E_STATE, molt_merge_pass(ss.m, &ss.vt, MOLT_PASS_NO_SYNC, &ss.stats, err));
    end(&t, &ss);
}

/* What is laid beside the upgrade's journal in each pass, with a hole in it as journald leaves them. */
static void beside_in_parts(void **s)
{
    (void)s;
    struct trees t;
    struct session ss;
    struct stat st;
    static const char name[] = "var/log/journal/system.journal", beside[] = "var/log/journal/system@xenmolt-active.journal";
    CLEANUP_FREE unsigned char *buf = molt_xmalloc(SIZE), *back = molt_xmalloc(SIZE);
    fill(buf, SIZE, 3);
    memset(buf + 4 * BLOCK, 0, 4 * BLOCK);
    trees_make(&t);
    mkdir3(&t, "var");
    mkdir3(&t, "var/log");
    mkdir3(&t, "var/log/journal");
    put3(&t, name, "b");
    put(t.u, name, "u", 3000);
    cut(t.a, name, SIZE);
    write_at(t.a, name, buf, 4 * BLOCK, 0);
    write_at(t.a, name, buf + 8 * BLOCK, SIZE - 8 * BLOCK, 8 * BLOCK);
    session_start(&ss, &t, NULL, MOLT_ON_CONFLICT_REFUSE);
    session_pass(&ss);
    assert_int_equal(ss.stats.bytes, SIZE - 4 * BLOCK);
    fill(buf + 6 * BLOCK, 100, 4);
    write_at(t.a, name, buf + 6 * BLOCK, 100, 6 * BLOCK);
    session_pass(&ss);
    assert_int_equal(ss.stats.bytes, BLOCK);
    assert_file(t.u, name, "u");
    int fd = openat(t.u, beside, O_RDONLY);
    assert_int_equal(pread(fd, back, SIZE, 0), SIZE);
    assert_memory_equal(back, buf, SIZE);
    assert_int_equal(fstat(fd, &st), 0);
    assert_true(st.st_size == SIZE && st.st_blocks * 512 <= (blkcnt_t)SIZE - 3 * (blkcnt_t)BLOCK);
    close(fd);
    end(&t, &ss);
}

/* A dump renamed aside, and the next one in its place, as large: the one is moved, the other comes whole. */
static void renamed_aside_for_another(void **s)
{
    (void)s;
    struct trees t;
    struct session ss;
    CLEANUP_FREE unsigned char *buf = molt_xmalloc(SIZE);
    trees_make(&t);
    fill(buf, SIZE, 5);
    int at[] = {t.b, t.a, t.u};
    for (int i = 0; i < 3; i++) {
        write_at(at[i], "dump", buf, SIZE, 0);
        set_time(at[i], "dump", 1000);
    }
    session_start(&ss, &t, NULL, MOLT_ON_CONFLICT_REFUSE);
    assert_int_equal(renameat(t.a, "dump", t.a, "dump.1"), 0);
    fill(buf, SIZE, 6);
    write_at(t.a, "dump", buf, SIZE, 0);
    session_pass(&ss);
    assert_same(&t, "dump");
    assert_same(&t, "dump.1");
    end(&t, &ss);
}

/* Its holes beyond what this side has do not come as data. */
static void a_sparse_file_that_grew_huge(void **s)
{
    (void)s;
    struct trees t;
    struct session ss;
    struct stat st;
    start(&t, &ss);
    write_at(t.a, "data", "far", 3, UINT64_C(1) << 33);
    session_pass(&ss);
    assert_true(ss.stats.bytes < 2 * SIZE);
    assert_int_equal(fstatat(t.u, "data", &st, 0), 0);
    assert_int_equal(st.st_size, (INT64_C(1) << 33) + 3);
    end(&t, &ss);
}

static void random_edits(void **s)
{
    (void)s;
    const char *seed_text = getenv("MOLT_SEED");
    unsigned seed = seed_text ? (unsigned)atoi(seed_text) : 7, x = seed;
    struct trees t;
    struct session ss;
    CLEANUP_FREE unsigned char *buf = molt_xmalloc(4 * BLOCK);
    start(&t, &ss);
    for (int i = 0; i < 60; i++) {
        struct stat st;
        for (int k = 0; k < 3; k++) {
            x = x * 1103515245u + 12345u;
            unsigned kind = x >> 28, where = (x >> 8) & 0xfffff;
            assert_int_equal(fstatat(t.a, "data", &st, 0), 0);
            if (kind < 2)
                cut(t.a, "data", (uint64_t)st.st_size * (where & 0xff) / 255);
            else if (kind < 4)
                cut(t.a, "data", (uint64_t)st.st_size + (where & 0x3ffff));
            fill(buf, 4 * BLOCK, x);
            if (kind >= 4)
                write_at(t.a, "data", buf, where % (4 * BLOCK) + 1, where % ((uint64_t)st.st_size + 1));
        }
        print_message("seed %u, step %d\n", seed, i);
        session_pass(&ss);
        assert_same(&t, "data");
    }
    end(&t, &ss);
}

/* Hashes that lie about their number; a record of a kind that was not asked for. */
static void hostile(void **s)
{
    (void)s;
    struct trees t;
    struct molt_error *e = NULL;
    trees_make(&t);
    put(t.a, "x", "content", 5);
    const uint64_t have[2] = {1, UINT64_MAX};
    const struct molt_pack_path with = {.path = "x", .have = have, .n_have = 2}, without = {.path = "x"};
    CLEANUP_STRBUF struct molt_strbuf req = MOLT_STRBUF_INIT, pack = MOLT_STRBUF_INIT;
    molt_pack_paths_encode(&with, 1, &req);
    CLEANUP_FREE struct molt_pack_path *v = NULL;
    size_t n;
    assert_ok(molt_pack_paths_decode(req.s, req.len, &v, &n, err));
    assert_true(n == 1 && v->n_have == 2 && v->have[0] == 1 && v->have[1] == UINT64_MAX);
    for (size_t i = 0; i < req.len; i++) {
        struct molt_pack_path *w = NULL;
        assert_int_equal(molt_pack_paths_decode(req.s, i, &w, &n, NULL), MOLT_E_PROTOCOL);
        for (int bit = 0; bit < 8; bit++) {
            CLEANUP_STRBUF struct molt_strbuf c = MOLT_STRBUF_INIT;
            molt_strbuf_add(&c, req.s, req.len);
            c.s[i] = (char)(c.s[i] ^ (1 << bit));
            if (molt_pack_paths_decode(c.s, c.len, &w, &n, &e) == 0)
                free(w);
            molt_error_clear(&e);
        }
    }
    struct molt_sink sink = molt_sink_strbuf(&pack);
    assert_ok(molt_pack_send(t.a, &with, 1, &sink, err));
    struct molt_mem mem = {(unsigned char *)pack.s, pack.len, 0};
    struct molt_source src = molt_source_mem(&mem);
    const struct molt_pack_handler none = {NULL, NULL, NULL, NULL};
    assert_code(MOLT_E_PROTOCOL, molt_pack_recv(&src, &without, 1, &none, NULL, err));
    trees_remove(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(only_what_changed),       cmocka_unit_test(holes_come_as_zeros),
        cmocka_unit_test(whole_where_in_place_would_show), cmocka_unit_test(changed_under_the_merge),
        cmocka_unit_test(random_edits),            cmocka_unit_test(hostile),
        cmocka_unit_test(beside_in_parts),
        cmocka_unit_test(renamed_aside_for_another), cmocka_unit_test(a_sparse_file_that_grew_huge),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
