/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The frame of CRIU's images (criu.org, "Images"): two magic numbers, then records, each behind its length of 32 bits. */
#ifndef MOLT_PROCMIG_IMAGE_H
#define MOLT_PROCMIG_IMAGE_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "base/strbuf.h"

/* criu/include/magic.h */
#define MOLT_IMAGE_COMMON  0x54564319u
#define MOLT_IMAGE_FILES   0x56303138u
#define MOLT_IMAGE_MM      0x57492820u
#define MOLT_IMAGE_PAGEMAP 0x56084025u
#define MOLT_IMAGE_REMAP_FPATH 0x59133954u
#define MOLT_IMAGE_TCP_STREAM 0x51465506u

struct molt__image {
    const unsigned char *p, *end;
};

/* Over an image in memory. MOLT_E_PROTOCOL: it is none, or of another kind. */
int molt__image_over(const void *data, size_t len, uint32_t kind, struct molt__image *ret, struct molt_error **err);
/* The next record, which lies in the image: 1, 0 at the end. MOLT_E_PROTOCOL: cut short. */
int molt__image_next(struct molt__image *m, const unsigned char **ret_data, size_t *ret_len, struct molt_error **err);

void molt__image_begin(struct molt_strbuf *b, uint32_t kind);
void molt__image_put(struct molt_strbuf *b, const void *data, size_t len);

#endif
