/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* JSON text to tree and back, by yajl's event parser and generator. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yajl/yajl_gen.h>
#include <yajl/yajl_parse.h>

#include "base/json.h"
#include "base/strbuf.h"

#define MAX_DEPTH 32

struct parse {
    struct molt_json *stack[MAX_DEPTH];
    char *key[MAX_DEPTH]; /* the key waiting for its value, by depth */
    int depth;
    struct molt_json *root;
};

/* Puts a finished scalar or a begun container where it belongs. */
static int put(struct parse *p, struct molt_json *v)
{
    if (p->depth == 0) {
        p->root = v;
        return 1;
    }
    struct molt_json *top = p->stack[p->depth - 1];
    if (molt_json_type(top) == MOLT_JSON_ARRAY) {
        molt_json_append(top, v);
        return 1;
    }
    molt_json_set(top, p->key[p->depth - 1], v);
    free(p->key[p->depth - 1]);
    p->key[p->depth - 1] = NULL;
    return 1;
}

static int open_container(struct parse *p, struct molt_json *v)
{
    if (p->depth == MAX_DEPTH) {
        molt_json_free(v);
        return 0;
    }
    put(p, v);
    p->stack[p->depth] = v;
    p->key[p->depth] = NULL;
    p->depth++;
    return 1;
}

static int on_null(void *p) { return put(p, molt_json_null()); }
static int on_bool(void *p, int b) { return put(p, molt_json_bool(b != 0)); }
static int on_int(void *p, long long i) { return put(p, molt_json_int(i)); }
static int on_double(void *p, double d) { return put(p, molt_json_double(d)); }
static int on_start_map(void *p) { return open_container(p, molt_json_object()); }
static int on_start_array(void *p) { return open_container(p, molt_json_array()); }

static int on_string(void *p, const unsigned char *s, size_t n)
{
    if (memchr(s, 0, n))
        return 0; /* C strings all the way: an embedded NUL is refused, not cut */
    char *c = molt_xstrndup((const char *)s, n);
    int r = put(p, molt_json_string(c));
    free(c);
    return r;
}

static int on_key(void *ctx, const unsigned char *s, size_t n)
{
    struct parse *p = ctx;
    if (memchr(s, 0, n))
        return 0;
    p->key[p->depth - 1] = molt_xstrndup((const char *)s, n);
    return 1;
}

static int on_end(void *ctx)
{
    struct parse *p = ctx;
    p->depth--;
    return 1;
}

static const yajl_callbacks callbacks = {
    .yajl_null = on_null,
    .yajl_boolean = on_bool,
    .yajl_integer = on_int,
    .yajl_double = on_double,
    .yajl_string = on_string,
    .yajl_start_map = on_start_map,
    .yajl_map_key = on_key,
    .yajl_end_map = on_end,
    .yajl_start_array = on_start_array,
    .yajl_end_array = on_end,
};

int molt_json_parse(const char *text, size_t len, struct molt_json **ret_v, struct molt_error **err)
{
    struct parse p = {.depth = 0};
    yajl_handle h = yajl_alloc(&callbacks, NULL, &p);
    yajl_status s = yajl_parse(h, (const unsigned char *)text, len);
    if (s == yajl_status_ok)
        s = yajl_complete_parse(h);
    yajl_free(h);
    for (int i = 0; i < MAX_DEPTH; i++)
        free(p.key[i]);
    if (s != yajl_status_ok || !p.root) {
        molt_json_free(p.root);
        return molt_error_set(err, MOLT_E_PROTOCOL, "malformed JSON (%zu bytes)", len);
    }
    *ret_v = p.root;
    return 0;
}

static void gen(yajl_gen g, const struct molt_json *v)
{
    const char *s;
    switch (molt_json_type(v)) {
    case MOLT_JSON_NULL:
        yajl_gen_null(g);
        break;
    case MOLT_JSON_BOOL:
        yajl_gen_bool(g, molt_json_boolval(v, false));
        break;
    case MOLT_JSON_INT:
        yajl_gen_integer(g, molt_json_intval(v, 0));
        break;
    case MOLT_JSON_DOUBLE: {
        char buf[40];
        int n = snprintf(buf, sizeof(buf), "%.10g", molt_json_doubleval(v, 0));
        yajl_gen_number(g, buf, (size_t)n);
        break;
    }
    case MOLT_JSON_STRING:
        s = molt_json_str(v);
        if (yajl_gen_string(g, (const unsigned char *)s, strlen(s)) != yajl_gen_status_ok)
            yajl_gen_string(g, (const unsigned char *)"?", 1); /* not UTF-8: the caller's encoding rule was broken */
        break;
    case MOLT_JSON_ARRAY:
        yajl_gen_array_open(g);
        for (size_t i = 0; i < molt_json_size(v); i++)
            gen(g, molt_json_at(v, i));
        yajl_gen_array_close(g);
        break;
    case MOLT_JSON_OBJECT:
        yajl_gen_map_open(g);
        for (size_t i = 0; i < molt_json_size(v); i++) {
            const char *k = molt_json_key_at(v, i);
            yajl_gen_string(g, (const unsigned char *)k, strlen(k));
            gen(g, molt_json_at(v, i));
        }
        yajl_gen_map_close(g);
        break;
    }
}

char *molt_json_print(const struct molt_json *v, bool pretty)
{
    yajl_gen g = yajl_gen_alloc(NULL);
    yajl_gen_config(g, yajl_gen_beautify, pretty ? 1 : 0);
    yajl_gen_config(g, yajl_gen_validate_utf8, 1);
    gen(g, v);
    const unsigned char *buf;
    size_t len;
    yajl_gen_get_buf(g, &buf, &len);
    while (len && buf[len - 1] == '\n')
        len--;
    char *r = molt_xstrndup((const char *)buf, len);
    yajl_gen_free(g);
    return r;
}
