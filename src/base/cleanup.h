/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The few cleanup attributes that the project uses. */
#ifndef MOLT_BASE_CLEANUP_H
#define MOLT_BASE_CLEANUP_H

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/error.h"

static inline void molt__cleanup_free(void *p) { free(*(void **)p); }
static inline void molt__cleanup_close(int *fd)
{
    if (*fd >= 0)
        close(*fd);
}
static inline void molt__cleanup_fclose(FILE **f)
{
    if (*f)
        fclose(*f);
}
static inline void molt__cleanup_closedir(DIR **d)
{
    if (*d)
        closedir(*d);
}
static inline void molt__cleanup_error(struct molt_error **e) { molt_error_free(*e); }

#define CLEANUP_FREE __attribute__((cleanup(molt__cleanup_free)))
#define CLEANUP_CLOSE __attribute__((cleanup(molt__cleanup_close)))
#define CLEANUP_FCLOSE __attribute__((cleanup(molt__cleanup_fclose)))
#define CLEANUP_CLOSEDIR __attribute__((cleanup(molt__cleanup_closedir)))
#define CLEANUP_ERROR __attribute__((cleanup(molt__cleanup_error)))

/* Takes the value out of a variable that has a cleanup, leaving the neutral value. */
#define MOLT_STEAL_PTR(p) ({ __typeof__(p) molt__p = (p); (p) = NULL; molt__p; })
#define MOLT_STEAL_FD(fd) ({ int molt__fd = (fd); (fd) = -1; molt__fd; })

#endif
