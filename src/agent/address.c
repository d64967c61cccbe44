/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A service's own address, which moves with it from one running guest to another. */
#include "agent/address.h"

#include <arpa/inet.h>
#include <errno.h>
#include <ifaddrs.h>
#include <linux/if_addr.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/agent.h"
#include "base/cleanup.h"
#include "base/fsio.h"
#include "base/rtreq.h"
#include "base/strbuf.h"

struct address {
    int family;
    unsigned char bytes[16];
    unsigned prefix;
    char text[INET6_ADDRSTRLEN], with_prefix[INET6_ADDRSTRLEN + 4];
};

static int parse(const char *text, struct address *ret, struct molt_error **err)
{
    struct address a = {.family = AF_INET};
    unsigned max = 32;
    int end = 0;
    if (text && sscanf(text, "%45[0-9a-fA-F.:]/%3u%n", a.text, &a.prefix, &end) == 2 && !text[end]) {
        if (strchr(a.text, ':')) {
            a.family = AF_INET6;
            max = 128;
        }
        if (a.prefix > 0 && a.prefix <= max && inet_pton(a.family, a.text, a.bytes) == 1) {
            snprintf(a.with_prefix, sizeof(a.with_prefix), "%s/%u", a.text, a.prefix);
            *ret = a;
            return 0;
        }
    }
    return molt_error_set(err, MOLT_E_USAGE, "not an address with the length of its network's prefix (10.0.0.5/24): '%.80s'", text ? text : "");
}

static size_t len_of(const struct address *a)
{
    return a->family == AF_INET ? 4 : 16;
}

static const unsigned char *bytes_of(const struct sockaddr *s)
{
    return s->sa_family == AF_INET ? (const unsigned char *)&((const struct sockaddr_in *)s)->sin_addr : (const unsigned char *)&((const struct sockaddr_in6 *)s)->sin6_addr;
}

static bool same_network(const unsigned char *x, const unsigned char *y, unsigned bits)
{
    unsigned whole = bits / 8, rest = bits % 8;
    return memcmp(x, y, whole) == 0 && (!rest || ((x[whole] ^ y[whole]) >> (8 - rest)) == 0);
}

struct found {
    char dev[IFNAMSIZ];  /* who has the address; "": nobody but perhaps the loopback device */
    char near[IFNAMSIZ]; /* who has another one of its network */
    bool hidden;         /* the loopback device has it */
};

static int find(const struct address *a, struct found *ret, struct molt_error **err)
{
    struct ifaddrs *list;
    *ret = (struct found){.dev = ""};
    if (getifaddrs(&list) < 0)
        return molt_error_errno(err, "look at the addresses");
    for (struct ifaddrs *i = list; i; i = i->ifa_next) {
        if (!i->ifa_addr || i->ifa_addr->sa_family != a->family)
            continue;
        const bool same = !memcmp(bytes_of(i->ifa_addr), a->bytes, len_of(a)), lo = i->ifa_flags & IFF_LOOPBACK;
        if (same && lo)
            ret->hidden = true;
        else if (same)
            snprintf(ret->dev, IFNAMSIZ, "%s", i->ifa_name);
        else if (!lo && same_network(bytes_of(i->ifa_addr), a->bytes, a->prefix))
            snprintf(ret->near, IFNAMSIZ, "%s", i->ifa_name);
    }
    freeifaddrs(list);
    return 0;
}

static int look(const char *text, struct address *ret, struct found *ret_who, struct molt_error **err)
{
    int r = parse(text, ret, err);
    return r < 0 ? r : find(ret, ret_who, err);
}

static int asked(const struct molt_request *rq, struct address *ret, struct found *ret_who, struct molt_error **err)
{
    return look(molt_json_get_string(rq->args, "address"), ret, ret_who, err);
}

/* Nobody is asked whether it is another's (no duplicate address detection): it was this service's a moment before. */
static int change(bool add, const struct address *a, unsigned prefix, const char *dev, struct molt_error **err)
{
    const struct ifaddrmsg body = {.ifa_family = (unsigned char)a->family, .ifa_prefixlen = (unsigned char)prefix, .ifa_index = if_nametoindex(dev),
                                   .ifa_flags = add && a->family == AF_INET6 ? IFA_F_NODAD : 0};
    struct molt_rtreq m;
    molt_rtreq_begin(&m, add ? RTM_NEWADDR : RTM_DELADDR, add ? NLM_F_CREATE | NLM_F_EXCL : 0, &body, sizeof(body));
    molt_rtreq_put(&m, IFA_LOCAL, a->bytes, len_of(a));
    molt_rtreq_put(&m, IFA_ADDRESS, a->bytes, len_of(a));
    int r = molt_rtreq_send(&m);
    if (r == 0)
        return 0;
    errno = -r;
    return molt_error_errno(err, "%s the address %s/%u %s %s", add ? "give" : "take", a->text, prefix, add ? "to" : "off", dev);
}

/* The prefix of a network that has nobody else. */
static unsigned whole(const struct address *a)
{
    return (unsigned)len_of(a) * 8;
}

static char *setting(const char *dev, const char *what)
{
    return molt_xasprintf("/proc/sys/net/ipv4/conf/%s/%s", dev, what);
}

static int set(const char *dev, const char *what, int value, int *ret_old, struct molt_error **err)
{
    CLEANUP_FREE char *path = setting(dev, what), *old = NULL;
    char text[16];
    int n = snprintf(text, sizeof(text), "%d\n", value), r = molt_read_file(path, 64, &old, NULL, err);
    if (r < 0)
        return r;
    if (ret_old)
        *ret_old = atoi(old);
    return molt_write_file(path, text, (size_t)n, 0644, err);
}

/* Were it the first address of its network, the kernel would take the others along. */
static int take_off(const struct address *a, const char *dev, struct molt_error **err)
{
    int old = 0, r = a->family == AF_INET ? set(dev, "promote_secondaries", 1, &old, err) : 0;
    if (r == 0)
        r = change(false, a, a->prefix, dev, err);
    if (a->family == AF_INET && !old)
        (void)set(dev, "promote_secondaries", 0, NULL, NULL);
    return r;
}

#define GIVEN  MOLT_AGENT_RUN "/address"    /* "10.0.0.5/24 eth0" */
#define HIDDEN MOLT_AGENT_RUN "/arp_ignore" /* "1 eth0": as it was */

static int write_words(const char *path, const char *first, const char *second, struct molt_error **err)
{
    CLEANUP_FREE char *text = molt_xasprintf("%s %s\n", first, second);
    return molt_write_file_atomic(path, text, strlen(text), 0600, err);
}

static bool read_words(const char *path, char *first, char *second)
{
    CLEANUP_FREE char *text = NULL;
    return molt_read_file(path, 256, &text, NULL, NULL) == 0 && sscanf(text, "%63s %15s", first, second) == 2;
}

int address_return(struct molt_error **err)
{
    char text[64], dev[IFNAMSIZ];
    struct found f;
    struct address a;
    int r = 0;
    if (!read_words(GIVEN, text, dev))
        return 0;
    if ((r = look(text, &a, &f, err)) == 0 && !*f.dev)
        r = change(true, &a, a.prefix, dev, err);
    if (r == 0) {
        (void)h_net_announce(NULL, NULL, NULL); /* who does not hear it asks again */
        address_forget();
    }
    return r;
}

void address_forget(void)
{
    unlink(GIVEN);
}

int address_give(const char *text, struct molt_error **err)
{
    struct found f;
    struct address a;
    int r = look(text, &a, &f, err);
    if (r == 0 && *f.dev)
        r = write_words(GIVEN, a.with_prefix, f.dev, err);
    return r < 0 || !*f.dev ? r : take_off(&a, f.dev, err);
}

static void tell_device(struct molt_json *reply, const char *key, const char *mac_key, const char *dev)
{
    CLEANUP_FREE char *path = molt_xasprintf("/sys/class/net/%s/address", dev), *mac = NULL;
    if (!*dev)
        return;
    molt_json_set_string(reply, key, dev);
    if (molt_read_file(path, 64, &mac, NULL, NULL) == 0) {
        mac[strcspn(mac, "\n")] = '\0';
        molt_json_set_string(reply, mac_key, mac);
    }
}

/* {"address"} -> {"dev": who has it, "near": who has another one of its network; "dev_mac", "near_mac"}. Reads only. */
int h_address_look(struct molt_request *rq, struct molt_json *reply, struct molt_error **err)
{
    struct found f;
    struct address a;
    int r = asked(rq, &a, &f, err);
    if (r == 0)
        tell_device(reply, "dev", "dev_mac", f.dev);
    if (r == 0)
        tell_device(reply, "near", "near_mac", f.near);
    return r;
}

/* A device of this guest, from the host. */
static int device(const char *dev, struct molt_error **err)
{
    return dev && !strchr(dev, '/') && if_nametoindex(dev) ? 0 : molt_error_set(err, MOLT_E_PROTOCOL, "no network device %.40s", dev ? dev : "");
}

/* {"address", "dev"}: it is this guest's, and nobody hears of it: on the loopback device, with the other one answering for its own addresses only.
 * Sockets can have it. */
int h_address_hide(struct molt_request *rq, struct molt_json *reply, struct molt_error **err)
{
    const char *dev = molt_json_get_string(rq->args, "dev");
    CLEANUP_FREE char *path = NULL, *old = NULL;
    struct found f;
    struct address a;
    (void)reply;
    int r = asked(rq, &a, &f, err);
    if (r == 0)
        r = device(dev, err);
    if (r == 0 && *f.dev)
        r = molt_error_set(err, MOLT_E_STATE, "%s is an address of %s here already", a.text, f.dev);
    if (r == 0 && a.family == AF_INET && !molt_exists(HIDDEN)) {
        path = setting(dev, "arp_ignore");
        r = molt_read_file(path, 64, &old, NULL, err);
        if (r == 0) {
            old[strcspn(old, "\n")] = '\0';
            r = write_words(HIDDEN, old, dev, err);
        }
    }
    if (r == 0 && a.family == AF_INET)
        r = set(dev, "arp_ignore", 1, NULL, err);
    if (r < 0)
        return r;
    return f.hidden ? 0 : change(true, &a, whole(&a), "lo", err);
}

/* {"address", "dev", "drop"}: from the loopback device to dev, or (drop) off; what address-hide set is set as it was. Also a second time. */
int h_address_show(struct molt_request *rq, struct molt_json *reply, struct molt_error **err)
{
    const char *dev = molt_json_get_string(rq->args, "dev");
    bool drop = molt_json_get_bool(rq->args, "drop", false);
    struct found f;
    struct address a;
    (void)reply;
    int r = asked(rq, &a, &f, err);
    if (r == 0)
        r = device(dev, err);
    if (r < 0)
        return r;
    if (!drop && !*f.dev)
        r = change(true, &a, a.prefix, dev, err);
    if (r == 0 && f.hidden)
        r = change(false, &a, whole(&a), "lo", err);
    char old[64], at[IFNAMSIZ];
    if (r == 0 && read_words(HIDDEN, old, at)) {
        r = set(at, "arp_ignore", atoi(old), NULL, err);
        unlink(HIDDEN);
    }
    return r;
}
