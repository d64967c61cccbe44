/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "base/strbuf.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void out_of_memory(size_t n)
{
    fprintf(stderr, "xenmolt: out of memory (%zu bytes)\n", n);
    abort();
}

void *molt_xrealloc(void *p, size_t n)
{
    p = realloc(p, n ? n : 1);
    if (!p)
        out_of_memory(n);
    return p;
}

void *molt_xmalloc(size_t n)
{
    return molt_xrealloc(NULL, n);
}

void *molt_xcalloc(size_t n, size_t size)
{
    void *p = calloc(n ? n : 1, size ? size : 1);
    if (!p)
        out_of_memory(n * size);
    return p;
}

char *molt_xstrndup(const char *s, size_t n)
{
    char *p = molt_xmalloc(n + 1);
    memcpy(p, s, n);
    p[n] = 0;
    return p;
}

char *molt_xstrdup(const char *s)
{
    return molt_xstrndup(s, strlen(s));
}

char *molt_xasprintf(const char *fmt, ...)
{
    struct molt_strbuf b = MOLT_STRBUF_INIT;
    va_list ap;
    va_start(ap, fmt);
    molt_strbuf_vaddf(&b, fmt, ap);
    va_end(ap);
    return molt_strbuf_steal(&b);
}

static bool is_octal(char c, char max)
{
    return c >= '0' && c <= max;
}

void molt_unescape_octal(char *s)
{
    char *to = s;
    for (; *s; to++)
        if (s[0] == '\\' && is_octal(s[1], '3') && is_octal(s[2], '7') && is_octal(s[3], '7')) {
            *to = (char)((s[1] - '0') << 6 | (s[2] - '0') << 3 | (s[3] - '0'));
            s += 4;
        } else {
            *to = *s++;
        }
    *to = '\0';
}

bool molt_streq(const char *a, const char *b)
{
    return a && b ? !strcmp(a, b) : a == b;
}

void molt_strbuf_free(struct molt_strbuf *b)
{
    free(b->s);
    *b = (struct molt_strbuf)MOLT_STRBUF_INIT;
}

static void reserve(struct molt_strbuf *b, size_t more)
{
    if (b->len + more + 1 <= b->cap)
        return;
    size_t cap = b->cap ? b->cap : 64;
    while (cap < b->len + more + 1)
        cap *= 2;
    b->s = molt_xrealloc(b->s, cap);
    b->cap = cap;
}

void molt_strbuf_add(struct molt_strbuf *b, const void *data, size_t len)
{
    reserve(b, len);
    if (len)
        memcpy(b->s + b->len, data, len);
    b->len += len;
    b->s[b->len] = 0;
}

void molt_strbuf_vaddf(struct molt_strbuf *b, const char *fmt, va_list ap)
{
    va_list copy;
    va_copy(copy, ap);
    int n = vsnprintf(NULL, 0, fmt, copy);
    va_end(copy);
    if (n < 0)
        return;
    reserve(b, (size_t)n);
    vsnprintf(b->s + b->len, (size_t)n + 1, fmt, ap);
    b->len += (size_t)n;
}

void molt_strbuf_addf(struct molt_strbuf *b, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    molt_strbuf_vaddf(b, fmt, ap);
    va_end(ap);
}

const char *molt_strbuf_str(const struct molt_strbuf *b)
{
    return b->s ? b->s : "";
}

char *molt_strbuf_steal(struct molt_strbuf *b)
{
    char *s = b->s ? b->s : molt_xstrdup("");
    *b = (struct molt_strbuf)MOLT_STRBUF_INIT;
    return s;
}
