/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A growing byte buffer (always NUL-terminated behind `len`) and small string helpers. Allocation failure aborts. */
#ifndef MOLT_BASE_STRBUF_H
#define MOLT_BASE_STRBUF_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>

struct molt_strbuf {
    char *s; /* NULL until the first add */
    size_t len, cap;
};
#define MOLT_STRBUF_INIT {NULL, 0, 0}

void molt_strbuf_free(struct molt_strbuf *b);
void molt_strbuf_add(struct molt_strbuf *b, const void *data, size_t len);
void molt_strbuf_addf(struct molt_strbuf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void molt_strbuf_vaddf(struct molt_strbuf *b, const char *fmt, va_list ap);
/* The text; "" when nothing was added. */
const char *molt_strbuf_str(const struct molt_strbuf *b);
/* Takes the text out (malloc'd, never NULL) and leaves an empty buffer. */
char *molt_strbuf_steal(struct molt_strbuf *b);
#define CLEANUP_STRBUF __attribute__((cleanup(molt_strbuf_free)))

/* malloc family that aborts with a message on failure. */
void *molt_xmalloc(size_t n);
void *molt_xcalloc(size_t n, size_t size);
void *molt_xrealloc(void *p, size_t n);
char *molt_xstrdup(const char *s);
char *molt_xstrndup(const char *s, size_t n);
char *molt_xasprintf(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* \ooo of /proc's files (mountinfo, maps) as the byte that it is; in place. */
void molt_unescape_octal(char *s);
bool molt_streq(const char *a, const char *b); /* NULL-safe */

/* Grows an array for one more element: MOLT_GROW(v, n, cap) before v[n++] = ... */
#define MOLT_GROW(v, n, cap)                                             \
    do {                                                                 \
        if ((n) == (cap)) {                                              \
            (cap) = (cap) ? (cap) * 2 : 16;                              \
            (v) = molt_xrealloc((v), (size_t)(cap) * sizeof(*(v)));      \
        }                                                                \
    } while (0)

#endif
