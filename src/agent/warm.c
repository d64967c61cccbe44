/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A scan waits for one block of one directory at a time, and after a boot that is most of its time: the disk could
 * serve many at once. So a few processes walk ahead of it and read nothing but directories.
 */
#include "agent/warm.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define MAX_DEPTH   64 /* one descriptor each */
#define SHARE_DEPTH 3  /* directories that deep are dealt out to the workers; all of them read the few above */

struct walk {
    unsigned worker, dealt;
    dev_t dev; /* of the tree; no other file system is walked */
};

static void walk(struct walk *w, int dirfd, const char *name, int depth)
{
    int fd = openat(dirfd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_NOATIME | O_CLOEXEC);
    struct stat st;
    bool ours = fd >= 0 && fstat(fd, &st) == 0 && (depth == 0 || st.st_dev == w->dev);
    DIR *d = ours ? fdopendir(fd) : NULL;
    if (!d) {
        if (fd >= 0)
            close(fd);
        return;
    }
    w->dev = st.st_dev;
    for (const struct dirent *e; (e = readdir(d));) {
        if (e->d_type != DT_DIR || !strcmp(e->d_name, ".") || !strcmp(e->d_name, ".."))
            continue;
        if (depth + 1 == SHARE_DEPTH && w->dealt++ % WARM_WORKERS != w->worker)
            continue;
        if (depth < MAX_DEPTH)
            walk(w, fd, e->d_name, depth + 1);
    }
    closedir(d);
}

void warm_start(struct warm *w, const int *trees, size_t n)
{
    for (unsigned i = 0; i < WARM_WORKERS; i++) {
        pid_t pid = fork();
        if (pid == 0) {
            struct walk walker = {.worker = i};
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            for (size_t t = 0; t < n; t++)
                walk(&walker, trees[t], ".", 0);
            _exit(0);
        }
        w->pid[i] = pid > 0 ? pid : 0;
    }
}

void warm_end(struct warm *w)
{
    for (unsigned i = 0; i < WARM_WORKERS; i++) {
        if (w->pid[i] == 0)
            continue;
        kill(w->pid[i], SIGKILL);
        waitpid(w->pid[i], NULL, 0);
        w->pid[i] = 0;
    }
}
