/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Bytes of a peer that is not to be trusted: refused, nothing read out of bounds, nothing written. */
#include "test_merge_util.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

/* Wraps content into a block whose checksum is right, so that the content itself is judged. */
static void block(struct molt_strbuf *out, const struct molt_strbuf *content)
{
    struct molt_sink sink = molt_sink_strbuf(out);
    assert_ok(molt_block_write(&sink, content->s ? content->s : "", content->len, err));
}

static int read_manifest(const void *p, size_t len)
{
    struct molt_mem mem = {p, len, 0};
    struct molt_source src = molt_source_mem(&mem);
    struct molt_manifest *m = NULL;
    struct molt_error *e = NULL;
    int rc = molt_manifest_read(&src, &m, &e);
    assert_true((rc < 0) == (m == NULL));
    molt_manifest_free(m);
    molt_error_free(e);
    return rc;
}

static int manifest_of(const char *const *paths, size_t n, unsigned type)
{
    CLEANUP_STRBUF struct molt_strbuf c = MOLT_STRBUF_INIT, out = MOLT_STRBUF_INIT;
    molt_put_num(&c, 0x314d4d58u);
    molt_put_num(&c, n);
    for (size_t i = 0; i < n; i++) {
        molt_put_num(&c, 0);
        molt_put_bytes(&c, paths[i], strlen(paths[i]));
        molt_put_num(&c, type);
        for (int k = 0; k < 12; k++)
            molt_put_num(&c, 0);
    }
    block(&out, &c);
    return read_manifest(out.s, out.len);
}

static void paths_in_manifests(void **s)
{
    (void)s;
    static const char *const good[] = {"", "a", "a/b", "a-b"};
    assert_int_equal(manifest_of(good, 4, MOLT_T_DIR), 0);
    static const char *const bad[] = {"/a", "a/", "a//b", "..", "a/..", "../a", ".", "a/./b"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_int_equal(manifest_of(&bad[i], 1, MOLT_T_REG), MOLT_E_PROTOCOL);
    static const char *const disorder[] = {"b", "a"}, *const twice[] = {"a", "a"},
                             *const bytes[] = {"a", "a-b", "a/b"};
    assert_int_equal(manifest_of(disorder, 2, MOLT_T_REG), MOLT_E_PROTOCOL);
    assert_int_equal(manifest_of(twice, 2, MOLT_T_REG), MOLT_E_PROTOCOL);
    assert_int_equal(manifest_of(bytes, 3, MOLT_T_DIR), MOLT_E_PROTOCOL);
    assert_int_equal(manifest_of(good, 4, 0), MOLT_E_PROTOCOL);
    assert_int_equal(manifest_of(good, 4, 99), MOLT_E_PROTOCOL);
    assert_int_equal(manifest_of(good, 1, MOLT_T_REG), MOLT_E_PROTOCOL); /* a root that is no directory */
}

/* Every cut and every flipped byte of the content, with the right checksum around it, ends without harm. */
static void damaged_manifests(void **s)
{
    (void)s;
    struct molt_manifest *m = molt_manifest_new();
    molt_manifest_add(m, &(struct molt_entry){.path = "", .type = MOLT_T_DIR, .mode = 0755});
    molt_manifest_add(m,
                      &(struct molt_entry){.path = "link", .type = MOLT_T_LNK, .target = "to", .ino = 300});
    molt_manifest_add(
        m, &(struct molt_entry){.path = "link2", .type = MOLT_T_REG, .size = 1u << 30, .mtime_ns = -5});
    CLEANUP_STRBUF struct molt_strbuf whole = MOLT_STRBUF_INIT;
    struct molt_sink sink = molt_sink_strbuf(&whole);
    assert_ok(molt_manifest_write(m, &sink, err));
    assert_int_equal(read_manifest(whole.s, whole.len), 0);
    for (size_t i = 0; i < whole.len; i++)
        assert_true(read_manifest(whole.s, i) < 0);
    for (size_t i = 0; i < whole.len; i++) {
        whole.s[i] ^= 0x41;
        assert_true(read_manifest(whole.s, whole.len) < 0);
        whole.s[i] ^= 0x41;
    }
    size_t n = whole.len - 16;
    for (size_t i = 0; i < n; i++) {
        for (int bit = 0; bit < 8; bit++) {
            CLEANUP_STRBUF struct molt_strbuf c = MOLT_STRBUF_INIT, out = MOLT_STRBUF_INIT;
            molt_strbuf_add(&c, whole.s + 8, bit ? n : i);
            if (bit)
                c.s[i] = (char)(c.s[i] ^ (1 << bit));
            block(&out, &c);
            read_manifest(out.s, out.len);
        }
    }
    molt_manifest_free(m);
}

static void lengths_that_lie(void **s)
{
    (void)s;
    static const unsigned char huge[] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f, 1, 2, 3};
    static const unsigned char gigabyte[] = {0, 0, 0, 0x3f, 0, 0,
                                             0, 0, 1, 2,    3}; /* says 1 GiB, has 3 bytes */
    assert_int_equal(read_manifest(huge, sizeof(huge)), MOLT_E_PROTOCOL);
    assert_true(read_manifest(gigabyte, sizeof(gigabyte)) < 0);
    CLEANUP_STRBUF struct molt_strbuf c = MOLT_STRBUF_INIT, out = MOLT_STRBUF_INIT;
    molt_put_num(&c, 0x314d4d58u);
    molt_put_num(&c, UINT64_MAX);
    block(&out, &c);
    assert_int_equal(read_manifest(out.s, out.len), MOLT_E_PROTOCOL);
}

static void deltas_that_do_not_fit(void **s)
{
    (void)s;
    CLEANUP_MANIFEST struct molt_manifest *old = molt_manifest_new();
    molt_manifest_add(old, &(struct molt_entry){.path = "", .type = MOLT_T_DIR});
    CLEANUP_STRBUF struct molt_strbuf c = MOLT_STRBUF_INIT, out = MOLT_STRBUF_INIT;
    molt_put_num(&c, 0x31444d58u);
    molt_put_num(&c, 0);
    molt_put_num(&c, 1);
    molt_put_num(&c, 0);
    molt_put_bytes(&c, "gone", 4); /* deletes what was never there */
    for (int k = 0; k < 32; k++)
        molt_put_num(&c, 0);
    block(&out, &c);
    struct molt_mem mem = {(unsigned char *)out.s, out.len, 0};
    struct molt_source src = molt_source_mem(&mem);
    struct molt_manifest *m = NULL;
    assert_code(MOLT_E_PROTOCOL, molt_manifest_delta_read(old, &src, &m, err));
}

static size_t handed;
static int on_begin(void *ctx, size_t i, const struct molt_record *r, struct molt_error **err)
{
    (void)ctx, (void)i, (void)r, (void)err;
    return 0;
}
static int on_data(void *ctx, uint64_t off, const void *p, size_t len, struct molt_error **err)
{
    (void)ctx, (void)off, (void)p, (void)err;
    handed += len;
    return 0;
}
static int on_end(void *ctx, uint64_t size, struct molt_error **err)
{
    (void)ctx, (void)size, (void)err;
    return 0;
}

static int read_pack(const void *p, size_t len, const char *path)
{
    struct molt_mem mem = {p, len, 0};
    struct molt_source src = molt_source_mem(&mem);
    const struct molt_pack_handler h = {on_begin, on_data, on_end, NULL};
    const struct molt_pack_path want = {.path = path};
    struct molt_error *e = NULL;
    int rc = molt_pack_recv(&src, &want, 1, &h, NULL, &e);
    molt_error_free(e);
    return rc;
}

/* As send_block does, for any damage. */
static void packs(void **s)
{
    (void)s;
    struct trees t;
    trees_make(&t);
    put(t.a, "x", "content", 5);
    int fd = openat(t.a, "x", O_RDWR);
    (void)!fsetxattr(fd, "user.note", "v", 1, 0);
    close(fd);
    CLEANUP_STRBUF struct molt_strbuf b = MOLT_STRBUF_INIT;
    struct molt_sink sink = molt_sink_strbuf(&b);
    const struct molt_pack_path want = {.path = "x"};
    assert_ok(molt_pack_send(t.a, &want, 1, &sink, err));
    assert_int_equal(read_pack(b.s, b.len, "x"), 0);
    assert_int_equal(handed, 7);
    assert_int_equal(read_pack(b.s, b.len, "etc/shadow"), MOLT_E_PROTOCOL); /* not what was asked for */
    for (size_t i = 0; i < b.len; i++)
        assert_true(read_pack(b.s, i, "x") < 0);
    size_t head = (unsigned char)b.s[0];
    for (size_t i = 0; i < head; i++) {
        for (int bit = 0; bit < 8; bit++) {
            CLEANUP_STRBUF struct molt_strbuf c = MOLT_STRBUF_INIT, out = MOLT_STRBUF_INIT;
            molt_strbuf_add(&c, b.s + 8, head);
            c.s[i] = (char)(c.s[i] ^ (1 << bit));
            block(&out, &c);
            molt_strbuf_add(&out, b.s + 16 + head, b.len - 16 - head);
            read_pack(out.s, out.len, "x");
        }
    }
    trees_remove(&t);
}

static void chunks_out_of_order(void **s)
{
    (void)s;
    struct trees t;
    trees_make(&t);
    put(t.a, "x", "", 5);
    CLEANUP_STRBUF struct molt_strbuf b = MOLT_STRBUF_INIT;
    struct molt_sink sink = molt_sink_strbuf(&b);
    const struct molt_pack_path want = {.path = "x"};
    assert_ok(molt_pack_send(t.a, &want, 1, &sink, err));
    size_t head = 16 + (size_t)(unsigned char)b.s[0];
    static const uint64_t bad[][2] = {{100, 50}, {INT64_MAX, INT64_MAX}, {UINT64_MAX, 0}};
    for (size_t i = 0; i < 3; i++) {
        CLEANUP_STRBUF struct molt_strbuf out = MOLT_STRBUF_INIT;
        molt_strbuf_add(&out, b.s, head);
        for (int k = 0; k < 2; k++) {
            CLEANUP_STRBUF struct molt_strbuf c = MOLT_STRBUF_INIT;
            molt_put_num(&c, 1);
            molt_put_num(&c, bad[i][k]);
            molt_strbuf_add(&c, "data", 4);
            block(&out, &c);
        }
        assert_int_equal(read_pack(out.s, out.len, "x"), MOLT_E_PROTOCOL);
    }
    trees_remove(&t);
}

static void requests(void **s)
{
    (void)s;
    struct trees t;
    trees_make(&t);
    put(t.fd, "secret", "s", 5);
    assert_int_equal(symlinkat("../secret", t.a, "way-out"), 0);
    struct molt_merge_server *server = molt_merge_server_new(t.a, NULL);
    CLEANUP_STRBUF struct molt_strbuf out = MOLT_STRBUF_INIT;
    struct molt_sink sink = molt_sink_strbuf(&out);
    static const char *const bad[] = {"../secret", "/etc/passwd", "a/../../secret"};
    for (size_t i = 0; i < 3; i++) {
        CLEANUP_STRBUF struct molt_strbuf req = MOLT_STRBUF_INIT;
        const struct molt_pack_path p = {.path = bad[i]};
        molt_pack_paths_encode(&p, 1, &req);
        assert_code(MOLT_E_PROTOCOL, molt_merge_serve(server, MOLT_MERGE_Q_PACK, req.s, req.len, &sink, err));
    }
    assert_code(MOLT_E_PROTOCOL, molt_merge_serve(server, (enum molt_merge_question)9, "", 0, &sink, err));
    assert_code(MOLT_E_PROTOCOL, molt_merge_serve(server, MOLT_MERGE_Q_DELTA, "xx", 2, &sink, err));
    assert_code(MOLT_E_PROTOCOL, molt_merge_serve(server, MOLT_MERGE_Q_PACK, "xx", 2, &sink, err));
    uint64_t h = 1;
    assert_ok(molt_hash_path(t.a, "way-out", &h, err));
    assert_int_equal(h, 0);
    molt_merge_server_free(server);
    trees_remove(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(paths_in_manifests),
        cmocka_unit_test(damaged_manifests),
        cmocka_unit_test(lengths_that_lie),
        cmocka_unit_test(deltas_that_do_not_fit),
        cmocka_unit_test(packs),
        cmocka_unit_test(chunks_out_of_order),
        cmocka_unit_test(requests),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
