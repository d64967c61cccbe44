/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* TCP connections to processes of the same guest that stay behind: their other end would be nowhere. */
#include <arpa/inet.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/strbuf.h"
#include "procmig/check_internal.h"
#include "procmig/procfs.h"

#define ADDRESS_MAX 33
#define MAPPED "0000000000000000FFFF0000" /* an IPv4 address in tcp6 */

struct end {
    char address[ADDRESS_MAX]; /* as the kernel prints it; of an IPv4 address always the 8 digits of tcp */
    unsigned port;
};

struct connection {
    struct end local, remote;
    uint64_t ino;
};

struct table {
    struct connection *v;
    size_t n, cap;
};

static void set_end(struct end *e, const char *address, unsigned port)
{
    size_t skip = strncmp(address, MAPPED, sizeof(MAPPED) - 1) ? 0 : sizeof(MAPPED) - 1;

    snprintf(e->address, sizeof(e->address), "%s", address + skip);
    e->port = port;
}

static int compare_end(const struct end *a, const struct end *b)
{
    int c = strcmp(a->address, b->address);

    return c ? c : (a->port > b->port) - (a->port < b->port);
}

static int compare(const void *a, const void *b)
{
    const struct connection *x = a, *y = b;
    int c = compare_end(&x->local, &y->local);

    return c ? c : compare_end(&x->remote, &y->remote);
}

/* The text of /proc/net/tcp or tcp6: all but listening sockets and those without an owner. */
static void add_connections(struct table *t, const char *text)
{
    for (const char *line = text; line && *line; line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL) {
        char local[ADDRESS_MAX], remote[ADDRESS_MAX];
        unsigned lport, rport, state;
        struct connection c;

        if (sscanf(line, " %*d: %32[0-9A-Fa-f]:%x %32[0-9A-Fa-f]:%x %x %*x:%*x %*x:%*x %*x %*u %*u %" SCNu64, local, &lport, remote, &rport,
                   &state, &c.ino) != 6 ||
            state == 10 || c.ino == 0)
            continue;
        set_end(&c.local, local, lport);
        set_end(&c.remote, remote, rport);
        MOLT_GROW(t->v, t->n, t->cap);
        t->v[t->n++] = c;
    }
}

static bool has(const uint64_t *v, size_t n, uint64_t ino)
{
    for (size_t i = 0; i < n; i++)
        if (v[i] == ino)
            return true;
    return false;
}

size_t molt__check_tcp_text(const char *tcp, const char *tcp6, const uint64_t *own, size_t n, unsigned *ret_port)
{
    struct table t = {NULL, 0, 0};
    size_t found = 0;

    add_connections(&t, tcp);
    add_connections(&t, tcp6);
    if (t.n)
        qsort(t.v, t.n, sizeof(*t.v), compare);
    for (size_t i = 0; i < t.n; i++) {
        const struct connection mirrored = {.local = t.v[i].remote, .remote = t.v[i].local};
        const struct connection *peer = bsearch(&mirrored, t.v, t.n, sizeof(*t.v), compare);

        if (!peer || !has(own, n, t.v[i].ino) || has(own, n, peer->ino))
            continue;
        if (found++ == 0)
            *ret_port = t.v[i].remote.port;
    }
    free(t.v);
    return found;
}

void molt__check_tcp(pid_t pid, const uint64_t *own, size_t n, struct molt_reasons *r)
{
    CLEANUP_FREE char *tcp = NULL, *tcp6 = NULL;
    unsigned port = 0;
    size_t found;

    (void)molt__proc_text(pid, "net/tcp", &tcp, NULL);
    (void)molt__proc_text(pid, "net/tcp6", &tcp6, NULL);
    found = molt__check_tcp_text(tcp, tcp6, own, n, &port);
    if (found)
        molt_reasons_add(r, "connection to another local process", "name the other service as well, or close the connection",
                         "%zu TCP connection%s to a process of the same guest that does not move, first to its port %u", found,
                         found == 1 ? " goes" : "s go", port);
}

/* As the kernel prints it: words of 32 bits as they lie in memory. */
static void print_address(const char *text, char *ret)
{
    uint32_t word[4];
    size_t words = strchr(text, ':') ? 4 : 1;

    *ret = '\0';
    if (inet_pton(words == 4 ? AF_INET6 : AF_INET, text, word) != 1)
        return;
    for (size_t i = 0; i < words; i++)
        ret += sprintf(ret, "%08X", word[i]);
}

/* Connections of its own to itself (molt__check_tcp looks at others) are at home anywhere. */
static bool is_loopback(const char *address)
{
    return strlen(address) == 8 ? !strcmp(address + 6, "7F") : !strcmp(address, "00000000000000000000000001000000");
}

size_t molt__check_address_text(const char *tcp, const char *tcp6, const uint64_t *own, size_t n, const char *address, unsigned *ret_port)
{
    char want[ADDRESS_MAX] = "";
    struct table t = {NULL, 0, 0};
    size_t found = 0;

    if (address)
        print_address(address, want);
    add_connections(&t, tcp);
    add_connections(&t, tcp6);
    for (size_t i = 0; i < t.n; i++)
        if (has(own, n, t.v[i].ino) && strcmp(t.v[i].local.address, want) && !is_loopback(t.v[i].local.address) && found++ == 0)
            *ret_port = t.v[i].local.port;
    free(t.v);
    return found;
}

int molt_check_address(struct molt_workload *const *w, size_t n, const char *address, struct molt_reasons *r, struct molt_error **err)
{
    CLEANUP_FREE char *tcp = NULL, *tcp6 = NULL;
    struct molt__inodes own = {NULL, 0, 0};
    unsigned port = 0;
    size_t found;
    int rc = 0;

    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < w[i]->procs && rc == 0; k++)
            rc = molt__socket_inodes(w[i]->proc[k].pid, &own, err);
    if (rc == 0 && n > 0) {
        (void)molt__proc_text(w[0]->main_pid, "net/tcp", &tcp, NULL);
        (void)molt__proc_text(w[0]->main_pid, "net/tcp6", &tcp6, NULL);
    }
    found = rc == 0 ? molt__check_address_text(tcp, tcp6, own.v, own.n, address, &port) : 0;
    if (found)
        molt_reasons_add(r, "connection of another address", "give the service an address of its own, which its peers use, and name it (--address), or close the connection",
                         "%zu TCP connection%s no connection of %s, first that of the local port %u", found, found == 1 ? " is" : "s are",
                         address ? address : "an address that moves", port);
    free(own.v);
    return rc;
}
