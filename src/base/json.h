/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * JSON values as a mutable tree (parsing and printing by yajl, which this header hides). Objects keep insertion
 * order. Constructors never return NULL. Adding a value to a container gives the container ownership.
 * Strings are UTF-8 on the wire; bytes that are not valid UTF-8 (file names!) must be encoded by the caller.
 */
#ifndef MOLT_BASE_JSON_H
#define MOLT_BASE_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

struct molt_json;
enum molt_json_type { MOLT_JSON_NULL, MOLT_JSON_BOOL, MOLT_JSON_INT, MOLT_JSON_DOUBLE, MOLT_JSON_STRING, MOLT_JSON_ARRAY, MOLT_JSON_OBJECT };

struct molt_json *molt_json_object(void);
struct molt_json *molt_json_array(void);
struct molt_json *molt_json_null(void);
struct molt_json *molt_json_bool(bool v);
struct molt_json *molt_json_int(int64_t v);
struct molt_json *molt_json_double(double v);
struct molt_json *molt_json_string(const char *s); /* copies; NULL makes a JSON null */
struct molt_json *molt_json_copy(const struct molt_json *v);
void molt_json_free(struct molt_json *v);
static inline void molt__cleanup_json(struct molt_json **v) { molt_json_free(*v); }
#define CLEANUP_JSON __attribute__((cleanup(molt__cleanup_json)))

/* Sets key (replacing an earlier value; v is owned by obj from now on). */
void molt_json_set(struct molt_json *obj, const char *key, struct molt_json *v);
void molt_json_set_string(struct molt_json *obj, const char *key, const char *s);
void molt_json_set_int(struct molt_json *obj, const char *key, int64_t v);
void molt_json_set_double(struct molt_json *obj, const char *key, double v);
void molt_json_set_bool(struct molt_json *obj, const char *key, bool v);
void molt_json_append(struct molt_json *arr, struct molt_json *v);

enum molt_json_type molt_json_type(const struct molt_json *v); /* NULL counts as MOLT_JSON_NULL */
size_t molt_json_size(const struct molt_json *v);              /* elements of an array or object, else 0 */
const struct molt_json *molt_json_at(const struct molt_json *arr, size_t i); /* array or object value; NULL out of range */
const char *molt_json_key_at(const struct molt_json *obj, size_t i);
/* NULL-safe look-ups; borrowed results; the default when missing or of another type. */
const struct molt_json *molt_json_get(const struct molt_json *obj, const char *key);
struct molt_json *molt_json_get_mutable(struct molt_json *obj, const char *key);
const char *molt_json_get_string(const struct molt_json *obj, const char *key); /* NULL when not a string */
int64_t molt_json_get_int(const struct molt_json *obj, const char *key, int64_t dflt);
double molt_json_get_double(const struct molt_json *obj, const char *key, double dflt); /* ints too */
bool molt_json_get_bool(const struct molt_json *obj, const char *key, bool dflt);
const char *molt_json_str(const struct molt_json *v); /* NULL when not a string */
int64_t molt_json_intval(const struct molt_json *v, int64_t dflt);
double molt_json_doubleval(const struct molt_json *v, double dflt); /* ints too */
bool molt_json_boolval(const struct molt_json *v, bool dflt);

/* Parses exactly one value of len bytes; depth is bounded at 32. *ret_v untouched on failure (MOLT_E_PROTOCOL). */
int molt_json_parse(const char *text, size_t len, struct molt_json **ret_v, struct molt_error **err);
/* One line, or indented when pretty; malloc'd, no trailing newline. */
char *molt_json_print(const struct molt_json *v, bool pretty);

#endif
