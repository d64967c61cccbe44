/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "guest.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/fsio.h"
#include "base/strbuf.h"
#include "domain.h"
#include "proto/vchan.h"

#define CONNECT_MS 15000
#define HELLO_MS 30000
#define CALL_MS 120000
#define MAX_KERNEL (64u << 20)
#define MAX_INITRD (512u << 20)
#define INSTALL_HINT "install the package xenmolt-agent in the guest (its service announces itself in xenstore)"

int molt_guest_agent_present(struct xenmolt *x, uint32_t domid, struct molt_error **err)
{
    CLEANUP_FREE char *proto = molt_store_readf(&x->store, "/local/domain/%u/data/xenmolt/proto", domid);
    if (!proto)
        return molt_error_set(err, MOLT_E_NO_AGENT, "domain %u has no xenmolt agent; " INSTALL_HINT, domid);
    /* A guest's text: only its number counts. */
    char *end;
    long v = strtol(proto, &end, 10);
    if (*end || v != MOLT_PROTO_VERSION)
        return molt_error_set(err, MOLT_E_AGENT_VERSION, "the agent in domain %u speaks protocol %ld, this host %d; install the xenmolt-agent package that belongs to this host's xenmolt", domid, v, MOLT_PROTO_VERSION);
    return 0;
}

int molt_guest_wait(struct xenmolt *x, uint32_t domid, int timeout_ms, bool (*cancelled)(void *), void *ctx, struct molt_error **err)
{
    int64_t end = molt_mono_ms() + timeout_ms;
    for (;;) {
        struct molt_domain d;
        int r = molt_domain_info(x, domid, &d, err);
        if (r < 0)
            return r;
        if (d.shutdown)
            return molt_error_set(err, MOLT_E_HEALTH, "domain %u shut down (reason %d) before its agent came up", domid, d.shutdown_reason);
        CLEANUP_FREE char *proto = molt_store_readf(&x->store, "/local/domain/%u/data/xenmolt/proto", domid);
        if (proto)
            return molt_guest_agent_present(x, domid, err);
        if (cancelled && cancelled(ctx))
            return molt_error_set(err, MOLT_E_ABORTED, "aborted");
        if (molt_mono_ms() > end)
            return molt_error_set(err, MOLT_E_HEALTH, "the agent of domain %u did not come up within %d s", domid, timeout_ms / 1000);
        molt_sleep_ms(200);
    }
}

int molt_guest_connect(struct xenmolt *x, uint32_t domid, struct molt_chan **ret, struct molt_json **ret_hello, struct molt_error **err)
{
    CLEANUP_FREE char *path = molt_xasprintf("/local/domain/%u/data/xenmolt/ctl", domid);
    struct molt_call call = {.timeout_ms = HELLO_MS};
    int r = molt_guest_agent_present(x, domid, err);
    if (r < 0)
        return r;
    /* The agent serves one host at a time: a connection that just ended may still stand in its ring. */
    for (int i = 0; r == 0 && i < 3; i++) {
        CLEANUP_CHAN struct molt_chan *c = NULL;
        molt_error_clear(err);
        r = molt_vchan_connect(domid, path, CONNECT_MS, &c, err);
        if (r < 0)
            break;
        c->timeout_ms = CALL_MS;
        if (molt_call(c, "hello", NULL, &call, ret_hello, err) == 0) {
            *ret = MOLT_STEAL_PTR(c);
            return 0;
        }
        molt_sleep_ms(500);
    }
    return molt_error_set(err, MOLT_E_NO_AGENT, "the agent of domain %u does not answer: %s", domid, err ? molt_error_text(*err) : "");
}

struct bounded_file {
    int fd;
    uint64_t left;
};

static int take(void *ctx, const void *buf, size_t len, struct molt_error **err)
{
    struct bounded_file *f = ctx;
    if (len > f->left)
        return molt_error_set(err, MOLT_E_PROTOCOL, "the guest sends more than it may");
    f->left -= len;
    return molt_write_all(f->fd, buf, len) < 0 ? molt_error_errno(err, "write") : 0;
}

static int fetch(struct molt_chan *c, const char *what, const char *path, uint64_t max, struct molt_error **err)
{
    CLEANUP_CLOSE int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return molt_error_errno(err, "open %s", path);
    struct bounded_file f = {fd, max};
    struct molt_call call = {.data = take, .ctx = &f};
    CLEANUP_JSON struct molt_json *args = molt_json_object();
    molt_json_set_string(args, "get", what);
    int r = molt_call(c, "boot-files", args, &call, NULL, err);
    if (r == 0 && fsync(fd) < 0)
        r = molt_error_errno(err, "fsync %s", path);
    return r;
}

/* Documentation/arch/x86/boot.rst: 0x1fe boot flag 0xAA55, 0x202 "HdrS", protocol 2.08 or later for Xen PV. */
int molt_check_bzimage(const char *path, struct molt_error **err)
{
    unsigned char h[0x210];
    CLEANUP_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return molt_error_errno(err, "open %s", path);
    if (molt_read_all(fd, h, sizeof(h)) != 1 || h[0x1fe] != 0x55 || h[0x1ff] != 0xaa || memcmp(h + 0x202, "HdrS", 4) != 0 || (h[0x206] | h[0x207] << 8) < 0x208)
        return molt_error_set(err, MOLT_E_PROTOCOL, "what the guest sent as its kernel is not a bzImage");
    return 0;
}

int molt_guest_fetch_boot(struct molt_chan *c, const char *kernel, const char *initrd, bool *ret_initrd, char **ret_version, struct molt_error **err)
{
    CLEANUP_JSON struct molt_json *info = NULL;
    int r = molt_call(c, "boot-files", NULL, NULL, &info, err);
    if (r < 0)
        return r;
    const char *version = molt_json_get_string(info, "version");
    int64_t k = molt_json_get_int(info, "kernel_bytes", 0), i = molt_json_get_int(info, "initrd_bytes", 0);
    if (!version || strlen(version) > 128 || strspn(version, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.+-_~") != strlen(version))
        return molt_error_set(err, MOLT_E_PROTOCOL, "the guest names no usable kernel version");
    if (k <= 0 || k > MAX_KERNEL || i < 0 || i > MAX_INITRD)
        return molt_error_set(err, MOLT_E_PROTOCOL, "the guest's kernel (%lld bytes) or initrd (%lld bytes) is out of bounds", (long long)k, (long long)i);
    r = fetch(c, "kernel", kernel, MAX_KERNEL, err);
    if (r == 0)
        r = molt_check_bzimage(kernel, err);
    if (r == 0 && i > 0)
        r = fetch(c, "initrd", initrd, MAX_INITRD, err);
    *ret_initrd = i > 0;
    if (r == 0)
        *ret_version = molt_xstrdup(version);
    return r;
}
