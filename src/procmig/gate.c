/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "procmig/gate.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/fsio.h"
#include "base/strbuf.h"

#define READY "ready"
#define GO    "go"

/* ---- our side ---- */

static int make_fifo(const char *dir, const char *name, int flags, struct molt_error **err)
{
    CLEANUP_FREE char *path = molt_xasprintf("%s/%s", dir, name);
    int fd;

    if (mkfifo(path, 0600) < 0)
        return molt_error_errno(err, "make %s", path);
    fd = open(path, flags | O_NONBLOCK | O_CLOEXEC);
    return fd < 0 ? molt_error_errno(err, "open %s", path) : fd;
}

int molt_gate_make(const char *dir, const char *program, struct molt_gate *ret, struct molt_error **err)
{
    struct molt_gate *g = ret;
    int r;

    *g = (struct molt_gate){.ready = -1, .go = -1};
    if ((r = molt_remove_tree(dir, err)) < 0 || (r = molt_mkdir_p(dir, 0700, err)) < 0)
        return r;
    g->dir = molt_xstrdup(dir);
    g->script = molt_xasprintf("%s/%s", dir, MOLT_GATE_NAME);
    if (symlink(program, g->script) < 0)
        return molt_error_errno(err, "make %s", g->script);
    if ((r = make_fifo(dir, READY, O_RDONLY, err)) < 0)
        return r;
    g->ready = r;
    /* For reading as well: it can be opened before anybody stands there. When we die, who reads gets the end of the file. */
    if ((r = make_fifo(dir, GO, O_RDWR, err)) < 0)
        return r;
    g->go = r;
    return 0;
}

int molt_gate_wait(const struct molt_gate *g, pid_t pid, int timeout_ms, struct molt_error **err)
{
    CLEANUP_CLOSE int fd = (int)syscall(SYS_pidfd_open, pid, 0);
    struct pollfd p[] = {{.fd = g->ready, .events = POLLIN}, {.fd = fd, .events = POLLIN}};
    int64_t end = molt_mono_ms() + timeout_ms;
    char byte;

    if (fd < 0)
        return molt_error_errno(err, "watch criu");
    for (;;) {
        int64_t left = end - molt_mono_ms();
        int n = poll(p, 2, left > 0 ? (int)left : 0);

        if (n < 0 && errno != EINTR)
            return molt_error_errno(err, "wait for criu");
        if (n > 0 && (p[0].revents & POLLIN) && read(g->ready, &byte, 1) == 1)
            return 0;
        if (n > 0 && p[1].revents)
            return molt_error_set(err, MOLT_E_STATE, "criu ended before it was to begin");
        if (left <= 0)
            return molt_error_set(err, MOLT_E_TIMEOUT, "criu was not ready within %d ms", timeout_ms);
        if (n > 0)
            molt_sleep_ms(1); /* the other end was closed, and criu is about to end */
    }
}

int molt_gate_open(const struct molt_gate *g, struct molt_error **err)
{
    return write(g->go, "g", 1) == 1 ? 0 : molt_error_errno(err, "open the gate for criu");
}

void molt_gate_close(struct molt_gate *g)
{
    if (g->ready >= 0)
        close(g->ready);
    if (g->go >= 0)
        close(g->go);
    if (g->dir)
        (void)molt_remove_tree(g->dir, NULL);
    free(g->dir);
    free(g->script);
    *g = (struct molt_gate){.ready = -1, .go = -1};
}

/* ---- the script ---- */

bool molt_gate_is(const char *path)
{
    const char *cut = strrchr(path, '/');

    return cut && !strcmp(cut + 1, MOLT_GATE_NAME);
}

static int open_beside(const char *path, const char *name, int flags)
{
    CLEANUP_FREE char *p = molt_xasprintf("%.*s%s", (int)(strrchr(path, '/') + 1 - path), path, name);

    return open(p, flags | O_CLOEXEC);
}

int molt_gate_main(const char *path)
{
    const char *action = getenv("CRTOOLS_SCRIPT_ACTION");
    char byte = 0;

    if (!action || strcmp(action, "pre-dump"))
        return 0;
    signal(SIGALRM, SIG_DFL);
    alarm(MOLT_GATE_MS / 1000);
    /* Who waits has both open already; where he is gone neither opening waits, nor the reading. */
    CLEANUP_CLOSE int go = open_beside(path, GO, O_RDONLY | O_NONBLOCK), ready = open_beside(path, READY, O_WRONLY | O_NONBLOCK);
    if (go < 0 || ready < 0 || fcntl(go, F_SETFL, 0) < 0 || write(ready, "r", 1) != 1)
        return 1;
    return read(go, &byte, 1) == 1 && byte == 'g' ? 0 : 1;
}
