/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "procmig/image.h"

static uint32_t get_u32(const unsigned char *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static void put_u32(struct molt_strbuf *b, uint32_t v)
{
    const unsigned char p[4] = {(unsigned char)v, (unsigned char)(v >> 8), (unsigned char)(v >> 16), (unsigned char)(v >> 24)};

    molt_strbuf_add(b, p, sizeof(p));
}

int molt__image_over(const void *data, size_t len, uint32_t kind, struct molt__image *ret, struct molt_error **err)
{
    const unsigned char *p = data;

    if (len < 8 || get_u32(p) != MOLT_IMAGE_COMMON || get_u32(p + 4) != kind)
        return molt_error_set(err, MOLT_E_PROTOCOL, "not an image of CRIU's, or not of the kind that its name says");
    *ret = (struct molt__image){p + 8, p + len};
    return 0;
}

int molt__image_next(struct molt__image *m, const unsigned char **ret_data, size_t *ret_len, struct molt_error **err)
{
    if (m->p == m->end)
        return 0;
    if (m->end - m->p < 4 || get_u32(m->p) > (size_t)(m->end - m->p - 4))
        return molt_error_set(err, MOLT_E_PROTOCOL, "an image of CRIU's is cut short");
    *ret_len = get_u32(m->p);
    *ret_data = m->p + 4;
    m->p += 4 + *ret_len;
    return 1;
}

void molt__image_begin(struct molt_strbuf *b, uint32_t kind)
{
    put_u32(b, MOLT_IMAGE_COMMON);
    put_u32(b, kind);
}

void molt__image_put(struct molt_strbuf *b, const void *data, size_t len)
{
    put_u32(b, (uint32_t)len);
    molt_strbuf_add(b, data, len);
}
