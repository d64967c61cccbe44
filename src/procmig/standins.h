/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * For the trial of a restore (rehearse.h): what the workload has open on a disk that is handed over is in the clone from the freeze on only. Until
 * then stand-ins take its place: of the same name, kind and size, and empty.
 */
#ifndef MOLT_PROCMIG_STANDINS_H
#define MOLT_PROCMIG_STANDINS_H

#include <stdbool.h>

#include "base/error.h"

/* A tmpfs over each of dirs (absolute; NULL-terminated; one that lies in another behind that), and in them each regular file, directory and FIFO that
 * the images' list of open files has there, sparse, mode as it is. In the caller's mount namespace, which is to be one of its own: they go with it.
 * Files that were deleted get their directories only, for they come with the images. MOLT_E_PROTOCOL: no such images. */
int molt__standins_lay(const char *images, const char *const *dirs, struct molt_error **err);
/* It lies below one of dirs (as above). */
bool molt__standins_for(const char *path, const char *const *dirs);

#endif
