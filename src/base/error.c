/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "base/error.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/strbuf.h"

struct molt_error {
    int code;
    char *text;
};

static int store(struct molt_error **err, int code, char *text)
{
    if (!err) {
        free(text);
        return code;
    }
    molt_error_free(*err);
    *err = molt_xmalloc(sizeof(**err));
    (*err)->code = code;
    (*err)->text = text;
    return code;
}

static char *vformat(const char *fmt, va_list ap)
{
    struct molt_strbuf b = MOLT_STRBUF_INIT;
    molt_strbuf_vaddf(&b, fmt, ap);
    char *text = molt_strbuf_steal(&b);
    for (char *p = text; *p; p++) /* one line, and no control characters: part of it may be a guest's words */
        if ((unsigned char)*p < ' ' || *p == 0x7f)
            *p = ' ';
    return text;
}

int molt_error_set(struct molt_error **err, int code, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    char *text = vformat(fmt, ap); /* before store: an argument may be the old error's text */
    va_end(ap);
    return store(err, code, text);
}

int molt_error_errno(struct molt_error **err, const char *fmt, ...)
{
    int e = errno;
    va_list ap;
    va_start(ap, fmt);
    char *what = vformat(fmt, ap);
    va_end(ap);
    char *text = molt_xasprintf("%s: %s", what, strerror(e));
    free(what);
    return store(err, e == ENOSPC || e == EDQUOT ? MOLT_E_NO_SPACE : MOLT_E_INTERNAL, text);
}

int molt_error_prefix(struct molt_error **err, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    char *what = vformat(fmt, ap);
    va_end(ap);
    int code = err && *err ? (*err)->code : MOLT_E_INTERNAL;
    char *text = molt_xasprintf("%s: %s", what, err ? molt_error_text(*err) : "");
    free(what);
    return store(err, code, text);
}

const char *molt_error_text(const struct molt_error *err)
{
    return err ? err->text : "";
}

int molt_error_code(const struct molt_error *err)
{
    return err ? err->code : 0;
}

void molt_error_free(struct molt_error *err)
{
    if (!err)
        return;
    free(err->text);
    free(err);
}

void molt_error_clear(struct molt_error **err)
{
    if (!err)
        return;
    molt_error_free(*err);
    *err = NULL;
}

void molt_error_move(struct molt_error **dst, struct molt_error *src)
{
    if (!dst) {
        molt_error_free(src);
        return;
    }
    if (*dst != src)
        molt_error_free(*dst);
    *dst = src;
}

struct code_row {
    int code, exit_status;
    const char *name, *text;
};
static const struct code_row codes[] = {
#define MOLT_X(name, value, status, text) {-(value), status, #name, text},
    MOLT_CODES(MOLT_X)
#undef MOLT_X
};

static const struct code_row *find_code(int code)
{
    for (size_t i = 0; i < sizeof(codes) / sizeof(codes[0]); i++)
        if (codes[i].code == code)
            return &codes[i];
    return NULL;
}

const char *molt_code_name(int code)
{
    const struct code_row *r = find_code(code);
    return r ? r->name : "UNKNOWN";
}

const char *molt_code_text(int code)
{
    const struct code_row *r = find_code(code);
    return r ? r->text : "unknown error";
}

int molt_code_exit_status(int code)
{
    const struct code_row *r = find_code(code);
    return r ? r->exit_status : 1;
}

int molt_code_from_name(const char *name)
{
    for (size_t i = 0; name && i < sizeof(codes) / sizeof(codes[0]); i++)
        if (!strcmp(codes[i].name, name))
            return codes[i].code;
    return MOLT_E_INTERNAL;
}
