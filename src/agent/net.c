/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Addresses of the guest: the upgrade network's for the clone's first boot, and the announcement after the switch. */
#include <arpa/inet.h>
#include <errno.h>
#include <ifaddrs.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <netinet/icmp6.h>
#include <netinet/if_ether.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "agent/agent.h"
#include "base/cleanup.h"
#include "base/fsio.h"
#include "base/strbuf.h"
#include "base/subprocess.h"

/* [{dev, family, address}] of everything but loopback and link-local. */
int net_addresses(struct molt_json **ret, struct molt_error **err)
{
    struct ifaddrs *list;
    if (getifaddrs(&list) < 0)
        return molt_error_errno(err, "getifaddrs");
    struct molt_json *arr = molt_json_array();
    for (struct ifaddrs *a = list; a; a = a->ifa_next) {
        char text[INET6_ADDRSTRLEN];
        if (!a->ifa_addr || (a->ifa_flags & IFF_LOOPBACK))
            continue;
        int family = a->ifa_addr->sa_family;
        if (family == AF_INET)
            inet_ntop(family, &((struct sockaddr_in *)a->ifa_addr)->sin_addr, text, sizeof(text));
        else if (family == AF_INET6 && !IN6_IS_ADDR_LINKLOCAL(&((struct sockaddr_in6 *)a->ifa_addr)->sin6_addr))
            inet_ntop(family, &((struct sockaddr_in6 *)a->ifa_addr)->sin6_addr, text, sizeof(text));
        else
            continue;
        struct molt_json *v = molt_json_object();
        molt_json_set_string(v, "dev", a->ifa_name);
        molt_json_set_string(v, "family", family == AF_INET ? "inet" : "inet6");
        molt_json_set_string(v, "address", text);
        molt_json_append(arr, v);
    }
    freeifaddrs(list);
    *ret = arr;
    return 0;
}

static int set_addr(int fd, const char *dev, unsigned long request, const char *ip, struct molt_error **err)
{
    struct ifreq ifr = {0};
    struct sockaddr_in *sin = (struct sockaddr_in *)&ifr.ifr_addr;
    snprintf(ifr.ifr_name, sizeof(ifr.ifr_name), "%s", dev);
    sin->sin_family = AF_INET;
    if (inet_pton(AF_INET, ip, &sin->sin_addr) != 1)
        return molt_error_set(err, MOLT_E_PROTOCOL, "not an IPv4 address: %s", ip);
    if (ioctl(fd, request, &ifr) < 0)
        return molt_error_errno(err, "%s: set %s", dev, ip);
    return 0;
}

/* The resolver of a stub (systemd-resolved does not run in the upgrade target) points nowhere: give it a target. */
static void provide_resolver(const char *dns)
{
    struct stat st;
    char *target = NULL;
    if (stat("/etc/resolv.conf", &st) == 0 || !dns)
        return;
    char link[512];
    ssize_t n = readlink("/etc/resolv.conf", link, sizeof(link) - 1);
    if (n < 0)
        return;
    link[n] = 0;
    target = link[0] == '/' ? molt_xstrdup(link) : molt_xasprintf("/etc/%s", link);
    if (strstr(target, "/run/")) {
        char *slash = strrchr(target, '/');
        *slash = 0;
        molt_mkdir_p(target, 0755, NULL);
        *slash = '/';
        CLEANUP_FREE char *text = molt_xasprintf("nameserver %s\n", dns);
        molt_write_file(target, text, strlen(text), 0644, NULL);
    }
    free(target);
}

/* {"dev", "address", "netmask", "gateway", "dns"}: by ioctl, so that no tool of the guest is needed. */
int h_net_setup(struct molt_request *rq, struct molt_json *reply, struct molt_error **err)
{
    (void)reply;
    const char *dev = molt_json_get_string(rq->args, "dev"), *addr = molt_json_get_string(rq->args, "address");
    const char *mask = molt_json_get_string(rq->args, "netmask"), *gw = molt_json_get_string(rq->args, "gateway");
    if (!dev || !addr || !mask || !gw)
        return molt_error_set(err, MOLT_E_PROTOCOL, "net-setup: an argument is missing");
    CLEANUP_CLOSE int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return molt_error_errno(err, "socket");
    int r = set_addr(fd, dev, SIOCSIFADDR, addr, err);
    if (r == 0)
        r = set_addr(fd, dev, SIOCSIFNETMASK, mask, err);
    struct ifreq ifr = {0};
    snprintf(ifr.ifr_name, sizeof(ifr.ifr_name), "%s", dev);
    if (r == 0 && ioctl(fd, SIOCGIFFLAGS, &ifr) == 0) {
        ifr.ifr_flags |= IFF_UP | IFF_RUNNING;
        if (ioctl(fd, SIOCSIFFLAGS, &ifr) < 0)
            r = molt_error_errno(err, "%s: up", dev);
    }
    if (r == 0) {
        char *argv[] = {"ip", "route", "replace", "default", "via", (char *)gw, NULL};
        r = molt_run_ok(argv, NULL, NULL, err);
    }
    if (r == 0)
        provide_resolver(molt_json_get_string(rq->args, "dns"));
    return r;
}

static int gratuitous_arp(int fd, const struct sockaddr_in *sin, const char *dev)
{
    struct ifreq ifr = {0};
    snprintf(ifr.ifr_name, sizeof(ifr.ifr_name), "%s", dev);
    if (ioctl(fd, SIOCGIFHWADDR, &ifr) < 0)
        return -1;
    struct {
        struct ether_arp arp;
    } p = {0};
    p.arp.arp_hrd = htons(ARPHRD_ETHER);
    p.arp.arp_pro = htons(ETH_P_IP);
    p.arp.arp_hln = ETH_ALEN;
    p.arp.arp_pln = 4;
    p.arp.arp_op = htons(ARPOP_REQUEST); /* RFC 5944 4.6: either form; a request is heeded by all */
    memcpy(p.arp.arp_sha, ifr.ifr_hwaddr.sa_data, ETH_ALEN);
    memcpy(p.arp.arp_spa, &sin->sin_addr, 4);
    memcpy(p.arp.arp_tpa, &sin->sin_addr, 4);
    struct sockaddr_ll to = {.sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ARP), .sll_ifindex = (int)if_nametoindex(dev), .sll_halen = ETH_ALEN};
    memset(to.sll_addr, 0xff, ETH_ALEN);
    return sendto(fd, &p, sizeof(p), 0, (struct sockaddr *)&to, sizeof(to)) < 0 ? -1 : 0;
}

/* An unsolicited neighbour advertisement to all nodes (RFC 4861, 7.2.6): the same for IPv6. */
static int advertise(const struct sockaddr_in6 *sin6, const char *dev)
{
    struct {
        struct nd_neighbor_advert na;
        struct nd_opt_hdr option;
        unsigned char mac[ETH_ALEN];
    } p = {.na = {.nd_na_type = ND_NEIGHBOR_ADVERT, .nd_na_flags_reserved = ND_NA_FLAG_OVERRIDE, .nd_na_target = sin6->sin6_addr},
           .option = {.nd_opt_type = ND_OPT_TARGET_LINKADDR, .nd_opt_len = 1}};
    struct sockaddr_in6 from = *sin6, to = {.sin6_family = AF_INET6, .sin6_scope_id = if_nametoindex(dev)};
    CLEANUP_CLOSE int fd = socket(AF_INET6, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_ICMPV6);
    struct ifreq ifr = {0};
    int hops = 255, index = (int)to.sin6_scope_id;
    snprintf(ifr.ifr_name, sizeof(ifr.ifr_name), "%s", dev);
    from.sin6_port = 0;
    if (fd < 0 || inet_pton(AF_INET6, "ff02::1", &to.sin6_addr) != 1 || ioctl(fd, SIOCGIFHWADDR, &ifr) < 0)
        return -1;
    memcpy(p.mac, ifr.ifr_hwaddr.sa_data, ETH_ALEN);
    if (setsockopt(fd, IPPROTO_IPV6, IPV6_MULTICAST_HOPS, &hops, sizeof(hops)) < 0 || setsockopt(fd, IPPROTO_IPV6, IPV6_MULTICAST_IF, &index, sizeof(index)) < 0 ||
        bind(fd, (struct sockaddr *)&from, sizeof(from)) < 0)
        return -1;
    return sendto(fd, &p, sizeof(p), 0, (struct sockaddr *)&to, sizeof(to)) < 0 ? -1 : 0; /* the kernel fills the checksum in */
}

/* Gratuitous ARP for every IPv4 address and an advertisement for every IPv6 one, so that bridges and neighbours learn the port. */
int h_net_announce(struct molt_request *rq, struct molt_json *reply, struct molt_error **err)
{
    (void)rq;
    struct ifaddrs *list;
    CLEANUP_CLOSE int fd = socket(AF_PACKET, SOCK_DGRAM | SOCK_CLOEXEC, htons(ETH_P_ARP));
    if (fd < 0 || getifaddrs(&list) < 0)
        return molt_error_errno(err, "announce");
    int sent = 0;
    for (struct ifaddrs *a = list; a; a = a->ifa_next)
        if (a->ifa_addr && a->ifa_addr->sa_family == AF_INET && !(a->ifa_flags & IFF_LOOPBACK))
            sent += gratuitous_arp(fd, (struct sockaddr_in *)a->ifa_addr, a->ifa_name) == 0;
        else if (a->ifa_addr && a->ifa_addr->sa_family == AF_INET6 && !(a->ifa_flags & IFF_LOOPBACK))
            sent += advertise((struct sockaddr_in6 *)a->ifa_addr, a->ifa_name) == 0;
    freeifaddrs(list);
    if (reply)
        molt_json_set_int(reply, "sent", sent);
    return 0;
}
