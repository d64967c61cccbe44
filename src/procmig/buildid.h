/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef MOLT_PROCMIG_BUILDID_H
#define MOLT_PROCMIG_BUILDID_H

#include <stddef.h>

#define MOLT_BUILD_ID_MAX 64 /* bytes of its hexadecimal text */

/* The build-ID of an ELF file (elf(5), NT_GNU_BUILD_ID in a PT_NOTE segment) as hexadecimal text; "" when it has none, or is none. The file may
 * be a guest's own: everything in it is checked. ret: MOLT_BUILD_ID_MAX + 1 bytes. */
void molt_build_id(const char *path, char *ret);
/* The same in the bytes of a segment of notes. */
void molt__build_id_of_notes(const unsigned char *p, size_t len, char *ret);

#endif
