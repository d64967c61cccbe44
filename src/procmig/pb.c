/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "procmig/pb.h"

#include <string.h>

#define KIND_INT   0
#define KIND_BYTES 2

static bool varint(struct molt__pb *m, uint64_t *ret_v)
{
    uint64_t v = 0;

    for (unsigned shift = 0; m->p < m->end && shift < 64; shift += 7) {
        unsigned char b = *m->p++;

        v |= (uint64_t)(b & 0x7f) << shift;
        if (!(b & 0x80)) {
            *ret_v = v;
            return true;
        }
    }
    return false;
}

struct molt__pb molt__pb_over(const void *data, size_t len)
{
    const unsigned char *p = data;

    return (struct molt__pb){p, p + len};
}

int molt__pb_next(struct molt__pb *m, struct molt__pb_field *ret)
{
    uint64_t tag, v;

    if (m->p == m->end)
        return 0;
    if (!varint(m, &tag) || ((tag & 7) != KIND_INT && (tag & 7) != KIND_BYTES) || !varint(m, &v))
        return -1;
    *ret = (struct molt__pb_field){.number = tag >> 3, .is_bytes = (tag & 7) == KIND_BYTES, .value = v};
    if (!ret->is_bytes)
        return 1;
    if (v > (uint64_t)(m->end - m->p))
        return -1;
    ret->data = m->p;
    ret->len = (size_t)v;
    m->p += v;
    return 1;
}

static void put_varint(struct molt_strbuf *b, uint64_t v)
{
    unsigned char byte[10];
    size_t n = 0;

    do {
        byte[n] = (unsigned char)((v & 0x7f) | (v > 0x7f ? 0x80 : 0));
        v >>= 7;
        n++;
    } while (v > 0);
    molt_strbuf_add(b, byte, n);
}

void molt__pb_int(struct molt_strbuf *b, unsigned field, uint64_t v)
{
    put_varint(b, (uint64_t)field << 3 | KIND_INT);
    put_varint(b, v);
}

void molt__pb_bytes(struct molt_strbuf *b, unsigned field, const void *data, size_t len)
{
    put_varint(b, (uint64_t)field << 3 | KIND_BYTES);
    put_varint(b, len);
    if (len)
        molt_strbuf_add(b, data, len);
}

void molt__pb_string(struct molt_strbuf *b, unsigned field, const char *s)
{
    molt__pb_bytes(b, field, s, strlen(s));
}
