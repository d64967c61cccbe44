/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "procmig/buildid.h"

#include <elf.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fsio.h"

#define SEGMENTS_MAX 256

static size_t aligned(size_t n) { return (n + 3) & ~(size_t)3; }

void molt__build_id_of_notes(const unsigned char *p, size_t len, char *ret)
{
    ret[0] = '\0';
    while (len >= sizeof(Elf64_Nhdr)) {
        Elf64_Nhdr n;
        memcpy(&n, p, sizeof(n));
        p += sizeof(n);
        len -= sizeof(n);
        if (n.n_namesz > len || aligned(n.n_namesz) > len || n.n_descsz > len - aligned(n.n_namesz))
            return;
        const unsigned char *desc = p + aligned(n.n_namesz);
        if (n.n_type == NT_GNU_BUILD_ID && n.n_namesz == 4 && !memcmp(p, "GNU", 4) && 2 * (size_t)n.n_descsz <= MOLT_BUILD_ID_MAX) {
            for (size_t i = 0; i < n.n_descsz; i++)
                snprintf(ret + 2 * i, 3, "%02x", desc[i]);
            return;
        }
        size_t step = aligned(n.n_namesz) + aligned(n.n_descsz);
        if (step > len)
            return;
        p += step;
        len -= step;
    }
}

void molt_build_id(const char *path, char *ret)
{
    CLEANUP_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    Elf64_Ehdr h;

    ret[0] = '\0';
    if (fd < 0 || molt_pread_all(fd, &h, sizeof(h), 0) != (ssize_t)sizeof(h) || memcmp(h.e_ident, ELFMAG, SELFMAG) || h.e_ident[EI_CLASS] != ELFCLASS64 ||
        h.e_phentsize != sizeof(Elf64_Phdr) || h.e_phnum > SEGMENTS_MAX)
        return;
    for (unsigned i = 0; i < h.e_phnum && !ret[0]; i++) {
        Elf64_Phdr s;
        unsigned char notes[4096];

        if (molt_pread_all(fd, &s, sizeof(s), h.e_phoff + i * sizeof(s)) != (ssize_t)sizeof(s))
            return;
        if (s.p_type == PT_NOTE && s.p_filesz > 0 && s.p_filesz <= sizeof(notes) && molt_pread_all(fd, notes, (size_t)s.p_filesz, s.p_offset) == (ssize_t)s.p_filesz)
            molt__build_id_of_notes(notes, (size_t)s.p_filesz, ret);
    }
}
