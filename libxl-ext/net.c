/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "net.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fsio.h"
#include "base/strbuf.h"
#include "base/subprocess.h"

void molt_upnet_names(const char *op_id, struct molt_upnet *n)
{
    const char *tail = strrchr(op_id, '-');
    tail = tail ? tail + 1 : op_id;
    unsigned long key = strtoul(tail, NULL, 16);
    /* A /30 of 100.64.0.0/10 (RFC 6598), chosen by the operation's random tail. */
    unsigned net = 0x64400000u + ((unsigned)(key & 0xfffff) << 2);
    snprintf(n->egress, sizeof(n->egress), "xmu%.8s", tail);
    snprintf(n->isolated, sizeof(n->isolated), "xmi%.8s", tail);
    snprintf(n->table, sizeof(n->table), "xenmolt_%.8s", tail);
    snprintf(n->host_ip, sizeof(n->host_ip), "%u.%u.%u.%u", net >> 24, (net >> 16) & 255, (net >> 8) & 255, (net & 255) | 1);
    snprintf(n->guest_ip, sizeof(n->guest_ip), "%u.%u.%u.%u", net >> 24, (net >> 16) & 255, (net >> 8) & 255, (net & 255) | 2);
    snprintf(n->netmask, sizeof(n->netmask), "255.255.255.252");
}

static int ip(struct molt_error **err, const char *a, const char *b, const char *c, const char *d, const char *e, const char *f)
{
    char *argv[] = {"ip", (char *)a, (char *)b, (char *)c, (char *)d, (char *)e, (char *)f, NULL};
    return molt_run_ok(argv, NULL, NULL, err);
}

static bool link_exists(const char *name)
{
    return if_nametoindex(name) != 0;
}

static int make_bridge(const char *name, struct molt_error **err)
{
    if (!link_exists(name)) {
        int r = ip(err, "link", "add", name, "type", "bridge", NULL);
        if (r < 0)
            return r;
    }
    /* No IPv6 of the host itself on it. */
    CLEANUP_FREE char *path = molt_xasprintf("/proc/sys/net/ipv6/conf/%s/disable_ipv6", name);
    molt_write_file(path, "1", 1, 0644, NULL);
    return 0;
}

/* Egress only: the clone may open connections to the outside, nobody may open one to it. */
static int make_nat(const struct molt_upnet *n, struct molt_error **err)
{
    CLEANUP_FREE char *rules = molt_xasprintf(
        "table ip %s {\n"
        "  chain postrouting { type nat hook postrouting priority srcnat; ip saddr %s oifname != \"%s\" masquerade; }\n"
        "  chain forward { type filter hook forward priority filter - 5;\n"
        "    oifname \"%s\" ct state established,related accept\n"
        "    oifname \"%s\" drop\n"
        "  }\n"
        "}\n", n->table, n->guest_ip, n->egress, n->egress, n->egress);
    char path[] = "/run/xenmolt-nft-XXXXXX";
    int fd = mkstemp(path);
    if (fd < 0)
        return molt_error_errno(err, "create %s", path);
    char *argv[] = {"nft", "-f", path, NULL};
    int r = molt_write_all(fd, rules, strlen(rules)) < 0 ? molt_error_errno(err, "write %s", path) : molt_run_ok(argv, NULL, NULL, err);
    close(fd);
    unlink(path);
    return r;
}

int molt_upnet_create(const struct molt_upnet *n, struct molt_error **err)
{
    CLEANUP_FREE char *cidr = molt_xasprintf("%s/30", n->host_ip);
    int r = molt_upnet_remove(n, err);
    /* Never up, so that its ports carry nothing: dom0 would answer the clone's ARP for any address of its own there, and
     * the clone, with the guest's address, would keep that bridge's MAC for its gateway beyond the switch. */
    if (r == 0)
        r = make_bridge(n->isolated, err);
    if (r == 0)
        r = make_bridge(n->egress, err);
    if (r == 0)
        r = ip(err, "link", "set", n->egress, "up", NULL, NULL);
    if (r == 0)
        r = ip(err, "addr", "add", cidr, "dev", n->egress, NULL);
    if (r == 0)
        r = make_nat(n, err);
    if (r == 0)
        r = molt_write_file("/proc/sys/net/ipv4/ip_forward", "1", 1, 0644, err);
    return r < 0 ? molt_error_prefix(err, "upgrade network") : 0;
}

int molt_upnet_remove(const struct molt_upnet *n, struct molt_error **err)
{
    char *list[] = {"nft", "list", "table", "ip", (char *)n->table, NULL};
    char *del[] = {"nft", "delete", "table", "ip", (char *)n->table, NULL};
    int status = 0;
    int r = molt_run(list, NULL, &status, NULL, err);
    if (r == 0 && status == 0)
        r = molt_run_ok(del, NULL, NULL, err);
    if (r == 0 && link_exists(n->egress))
        r = ip(err, "link", "del", n->egress, NULL, NULL, NULL);
    if (r == 0 && link_exists(n->isolated))
        r = ip(err, "link", "del", n->isolated, NULL, NULL, NULL);
    return r < 0 ? molt_error_prefix(err, "upgrade network") : 0;
}

/* A resolver that listens on dom0's loopback is of no use to a guest. */
static char *dns_of(const char *path)
{
    CLEANUP_FREE char *text = NULL;
    if (molt_read_file(path, 65536, &text, NULL, NULL) < 0)
        return NULL;
    for (const char *p = text; (p = strstr(p, "nameserver ")); ) {
        p += strlen("nameserver ");
        if (strncmp(p, "127.", 4) != 0 && strncmp(p, "::1", 3) != 0)
            return molt_xstrndup(p, strcspn(p, " \t\n"));
    }
    return NULL;
}

char *molt_host_dns(void)
{
    char *dns = dns_of("/etc/resolv.conf");
    return dns ? dns : dns_of("/run/systemd/resolve/resolv.conf");
}

char *molt_vif_name(const libxl_device_nic *nic, uint32_t domid)
{
    return nic->ifname ? molt_xstrdup(nic->ifname) : molt_xasprintf("vif%u.%d", domid, nic->devid);
}
