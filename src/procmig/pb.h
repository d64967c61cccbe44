/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Protobuf's wire format, as far as CRIU's requests and statistics need it: numbers and byte strings (protobuf.dev, "Encoding"). */
#ifndef MOLT_PROCMIG_PB_H
#define MOLT_PROCMIG_PB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/strbuf.h"

struct molt__pb {
    const unsigned char *p, *end;
};

struct molt__pb_field {
    uint64_t number;
    bool is_bytes;
    uint64_t value; /* a number's */
    const unsigned char *data;
    size_t len; /* of data, which lies in the message */
};

struct molt__pb molt__pb_over(const void *data, size_t len);
/* The next field: 1, 0 at the end, -1: malformed, or of a kind that is not read here. */
int molt__pb_next(struct molt__pb *m, struct molt__pb_field *ret);

void molt__pb_int(struct molt_strbuf *b, unsigned field, uint64_t v);
void molt__pb_bytes(struct molt_strbuf *b, unsigned field, const void *data, size_t len);
void molt__pb_string(struct molt_strbuf *b, unsigned field, const char *s);

#endif
