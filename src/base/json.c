/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "base/json.h"

#include <stdlib.h>
#include <string.h>

#include "base/strbuf.h"

struct molt_json {
    enum molt_json_type type;
    union {
        bool b;
        int64_t i;
        double d;
        char *s;
        struct {
            struct molt_json **v;
            char **key; /* objects only */
            size_t n, cap;
        } c;
    } u;
};

static struct molt_json *make(enum molt_json_type type)
{
    struct molt_json *v = molt_xcalloc(1, sizeof(*v));
    v->type = type;
    return v;
}

struct molt_json *molt_json_object(void) { return make(MOLT_JSON_OBJECT); }
struct molt_json *molt_json_array(void) { return make(MOLT_JSON_ARRAY); }
struct molt_json *molt_json_null(void) { return make(MOLT_JSON_NULL); }

struct molt_json *molt_json_bool(bool b)
{
    struct molt_json *v = make(MOLT_JSON_BOOL);
    v->u.b = b;
    return v;
}

struct molt_json *molt_json_int(int64_t i)
{
    struct molt_json *v = make(MOLT_JSON_INT);
    v->u.i = i;
    return v;
}

struct molt_json *molt_json_double(double d)
{
    struct molt_json *v = make(MOLT_JSON_DOUBLE);
    v->u.d = d;
    return v;
}

struct molt_json *molt_json_string(const char *s)
{
    if (!s)
        return molt_json_null();
    struct molt_json *v = make(MOLT_JSON_STRING);
    v->u.s = molt_xstrdup(s);
    return v;
}

static bool is_container(const struct molt_json *v)
{
    return v && (v->type == MOLT_JSON_ARRAY || v->type == MOLT_JSON_OBJECT);
}

void molt_json_free(struct molt_json *v)
{
    if (!v)
        return;
    if (v->type == MOLT_JSON_STRING)
        free(v->u.s);
    if (is_container(v)) {
        for (size_t i = 0; i < v->u.c.n; i++) {
            molt_json_free(v->u.c.v[i]);
            if (v->u.c.key)
                free(v->u.c.key[i]);
        }
        free(v->u.c.v);
        free(v->u.c.key);
    }
    free(v);
}

static void push(struct molt_json *c, const char *key, struct molt_json *v)
{
    if (c->u.c.n == c->u.c.cap) {
        c->u.c.cap = c->u.c.cap ? c->u.c.cap * 2 : 8;
        c->u.c.v = molt_xrealloc(c->u.c.v, c->u.c.cap * sizeof(*c->u.c.v));
        if (c->type == MOLT_JSON_OBJECT)
            c->u.c.key = molt_xrealloc(c->u.c.key, c->u.c.cap * sizeof(*c->u.c.key));
    }
    if (c->type == MOLT_JSON_OBJECT)
        c->u.c.key[c->u.c.n] = molt_xstrdup(key);
    c->u.c.v[c->u.c.n++] = v;
}

struct molt_json *molt_json_copy(const struct molt_json *v)
{
    struct molt_json *r;
    switch (molt_json_type(v)) {
    case MOLT_JSON_BOOL: return molt_json_bool(v->u.b);
    case MOLT_JSON_INT: return molt_json_int(v->u.i);
    case MOLT_JSON_DOUBLE: return molt_json_double(v->u.d);
    case MOLT_JSON_STRING: return molt_json_string(v->u.s);
    case MOLT_JSON_ARRAY:
    case MOLT_JSON_OBJECT:
        r = make(v->type);
        for (size_t i = 0; i < v->u.c.n; i++)
            push(r, v->u.c.key ? v->u.c.key[i] : NULL, molt_json_copy(v->u.c.v[i]));
        return r;
    case MOLT_JSON_NULL: break;
    }
    return molt_json_null();
}

static size_t find(const struct molt_json *obj, const char *key)
{
    for (size_t i = 0; i < obj->u.c.n; i++)
        if (!strcmp(obj->u.c.key[i], key))
            return i;
    return (size_t)-1;
}

void molt_json_set(struct molt_json *obj, const char *key, struct molt_json *v)
{
    if (!obj || obj->type != MOLT_JSON_OBJECT) {
        molt_json_free(v);
        return;
    }
    size_t i = find(obj, key);
    if (i == (size_t)-1) {
        push(obj, key, v);
        return;
    }
    molt_json_free(obj->u.c.v[i]);
    obj->u.c.v[i] = v;
}

void molt_json_set_string(struct molt_json *o, const char *k, const char *s) { molt_json_set(o, k, molt_json_string(s)); }
void molt_json_set_int(struct molt_json *o, const char *k, int64_t v) { molt_json_set(o, k, molt_json_int(v)); }
void molt_json_set_double(struct molt_json *o, const char *k, double v) { molt_json_set(o, k, molt_json_double(v)); }
void molt_json_set_bool(struct molt_json *o, const char *k, bool v) { molt_json_set(o, k, molt_json_bool(v)); }

void molt_json_append(struct molt_json *arr, struct molt_json *v)
{
    if (arr && arr->type == MOLT_JSON_ARRAY)
        push(arr, NULL, v);
    else
        molt_json_free(v);
}

enum molt_json_type molt_json_type(const struct molt_json *v)
{
    return v ? v->type : MOLT_JSON_NULL;
}

size_t molt_json_size(const struct molt_json *v)
{
    return is_container(v) ? v->u.c.n : 0;
}

const struct molt_json *molt_json_at(const struct molt_json *arr, size_t i)
{
    return i < molt_json_size(arr) ? arr->u.c.v[i] : NULL;
}

const char *molt_json_key_at(const struct molt_json *obj, size_t i)
{
    return molt_json_type(obj) == MOLT_JSON_OBJECT && i < obj->u.c.n ? obj->u.c.key[i] : NULL;
}

struct molt_json *molt_json_get_mutable(struct molt_json *obj, const char *key)
{
    if (molt_json_type(obj) != MOLT_JSON_OBJECT)
        return NULL;
    size_t i = find(obj, key);
    return i == (size_t)-1 ? NULL : obj->u.c.v[i];
}

const struct molt_json *molt_json_get(const struct molt_json *obj, const char *key)
{
    return molt_json_get_mutable((struct molt_json *)obj, key);
}

const char *molt_json_str(const struct molt_json *v)
{
    return molt_json_type(v) == MOLT_JSON_STRING ? v->u.s : NULL;
}

int64_t molt_json_intval(const struct molt_json *v, int64_t dflt)
{
    return molt_json_type(v) == MOLT_JSON_INT ? v->u.i : dflt;
}

const char *molt_json_get_string(const struct molt_json *obj, const char *key)
{
    return molt_json_str(molt_json_get(obj, key));
}

int64_t molt_json_get_int(const struct molt_json *obj, const char *key, int64_t dflt)
{
    return molt_json_intval(molt_json_get(obj, key), dflt);
}

double molt_json_doubleval(const struct molt_json *v, double dflt)
{
    if (molt_json_type(v) == MOLT_JSON_INT)
        return (double)v->u.i;
    return molt_json_type(v) == MOLT_JSON_DOUBLE ? v->u.d : dflt;
}

bool molt_json_boolval(const struct molt_json *v, bool dflt)
{
    return molt_json_type(v) == MOLT_JSON_BOOL ? v->u.b : dflt;
}

double molt_json_get_double(const struct molt_json *obj, const char *key, double dflt)
{
    return molt_json_doubleval(molt_json_get(obj, key), dflt);
}

bool molt_json_get_bool(const struct molt_json *obj, const char *key, bool dflt)
{
    return molt_json_boolval(molt_json_get(obj, key), dflt);
}
