/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* procmig: parsing of what the kernel and systemd say, and of what peers send. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "base/fsio.h"
#include "base/strbuf.h"
#include "procmig/carry.h"
#include "procmig/check.h"
#include "procmig/check_internal.h"
#include "procmig/image.h"
#include "procmig/pb.h"
#include "procmig/procfs.h"
#include "procmig/rehearse.h"
#include "procmig/restore.h"
#include "procmig/tcpclock.h"

static struct molt_json *parse(const char *text)
{
    struct molt_json *v = NULL;

    assert_int_equal(molt_json_parse(text, strlen(text), &v, NULL), 0);
    return v;
}

static void unit_names(void **state)
{
    static const char *const bad[] = {"", "-x", "a/b", "a b", "x.socket", "../x", "x.timer", "a\nb", NULL};
    CLEANUP_FREE char *a = NULL, *b = NULL, *c = NULL;

    (void)state;
    assert_int_equal(molt_unit_name("counter", &a, NULL), 0);
    assert_string_equal(a, "counter.service");
    assert_int_equal(molt_unit_name("my.app@1.service", &b, NULL), 0);
    assert_string_equal(b, "my.app@1.service");
    assert_int_equal(molt_unit_name("my.app", &c, NULL), 0);
    assert_string_equal(c, "my.app.service");
    for (size_t i = 0; bad[i]; i++) {
        char *out = NULL;

        assert_int_equal(molt_unit_name(bad[i], &out, NULL), MOLT_E_USAGE);
        assert_null(out);
    }
    assert_int_equal(molt_unit_name(NULL, &a, NULL), MOLT_E_USAGE);
}

static void systemctl_output(void **state)
{
    static const char out[] = "Type=simple\nMainPID=812\nControlGroup=/system.slice/counter.service\n"
                              "LoadState=loaded\nActiveState=active\nEmpty=\nEnvironment=A=b C=d\nLast=x";
    CLEANUP_FREE char *pid = molt__show_get(out, "MainPID"), *empty = molt__show_get(out, "Empty");
    CLEANUP_FREE char *env = molt__show_get(out, "Environment"), *last = molt__show_get(out, "Last");

    (void)state;
    assert_string_equal(pid, "812");
    assert_string_equal(empty, "");
    assert_string_equal(env, "A=b C=d");
    assert_string_equal(last, "x");
    assert_null(molt__show_get(out, "PID"));
    assert_null(molt__show_get("", "Type"));
}

static void proc_stat(void **state)
{
    struct molt__stat s;

    (void)state;
    assert_true(
        molt__stat_parse("812 (a) b (c) S 1 812 811 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 33 0 4711 1 2", &s));
    assert_int_equal(s.ppid, 1);
    assert_int_equal(s.pgrp, 812);
    assert_int_equal(s.session, 811);
    assert_int_equal(s.state, 'S');
    assert_int_equal(s.start_ticks, 4711);
    assert_false(molt__stat_parse("812 (x", &s));
    assert_false(molt__stat_parse("812 (x) S 1", &s));
    assert_int_equal(molt__status_num("Name:\tTracerPid\nTracerPid:\t7\nTgid:\t9\n", "TracerPid", -1), 7);
    assert_int_equal(molt__status_num("Name:\tx\n", "TracerPid", -1), -1);
}

static void cgroups(void **state)
{
    CLEANUP_FREE char *a = molt__cgroup_parse("1:name=systemd:/x\n0::/system.slice/a.service\n");

    (void)state;
    assert_string_equal(a, "/system.slice/a.service");
    assert_null(molt__cgroup_parse("1:cpu:/x\n"));
    assert_true(molt__cgroup_within("/s/a.service", "/s/a.service"));
    assert_true(molt__cgroup_within("/s/a.service/sub", "/s/a.service"));
    assert_false(molt__cgroup_within("/s/a.service2", "/s/a.service"));
    assert_false(molt__cgroup_within("/s", "/"));
}

static void maps_lines(void **state)
{
    char file[] = "7f10-7f20 r--p 00001000 fd:01 4242   /usr/lib/a file.so\n";
    char gone[] = "7f10-7f20 rw-s 00000000 00:1f 12 /tmp/x (deleted)";
    char anon[] = "7f10-7f20 rw-p 00000000 00:00 0 ";
    char heap[] = "7f10-7f20 rw-p 00000000 00:00 0 [heap]";
    char junk[] = "not a line";
    struct molt__map m;

    (void)state;
    assert_true(molt__map_parse(file, &m));
    assert_string_equal(m.path, "/usr/lib/a file.so");
    assert_int_equal(m.start, 0x7f10);
    assert_int_equal(m.end, 0x7f20);
    assert_int_equal(m.ino, 4242);
    assert_int_equal(m.major, 0xfd);
    assert_false(m.deleted || m.shared || m.write);
    assert_true(molt__map_parse(gone, &m));
    assert_string_equal(m.path, "/tmp/x");
    assert_true(m.deleted && m.shared && m.write);
    assert_false(molt__map_parse(anon, &m));
    assert_false(molt__map_parse(heap, &m));
    assert_false(molt__map_parse(junk, &m));
}

static void tcp_table(void **state)
{
    static const char text[] =
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
        "   0: 0B004D0A:1B58 00000000:0000 0A 00000000:00000000 00:00000000 00000000   999        0 100 1 0 "
        "100 0 0 10 0\n"
        "   1: 0B004D0A:1B58 01004D0A:C350 01 00000000:00000000 02:000A 00000000   999        0 101 2 0 20 4 "
        "30 10 -1\n"
        "   2: 0B004D0A:1B58 01004D0A:C351 01 00000000:00000000 00:00000000 00000000   999        0 102 1 0 "
        "20 4 30 10 -1\n"
        "   3: 0B004D0A:1B58 01004D0A:C352 06 00000000:00000000 03:00001770 00000000     0        0 0 3 0\n";
    static const char six[] =
        "   0: 00000000000000000000000000000000:1B58 0000000000000000FFFF00000100000A:C350 01 "
        "00000000:00000000 00:00000000 00000000   999        0 103 1 0 20 4 30 10 -1\n";
    const uint64_t ino[] = {100, 101, 103};

    (void)state;
    assert_int_equal(molt__count_established(text, ino, 3), 1);
    assert_int_equal(molt__count_established(six, ino, 3), 1);
    assert_int_equal(molt__count_established("", ino, 3), 0);
}

static void paths_in_json(void **state)
{
    static const char *const bad[] = {"",    "x",    "/",      "/a//b", "/a/../b", "/.",
                                      "/a/", "/a%0", "/a%00b", "/a%zz", "/a%",     NULL};
    CLEANUP_FREE char *coded = molt__path_encode("/a \xff%\n/b"), *back = NULL;

    (void)state;
    assert_string_equal(coded, "/a%20%FF%25%0A/b");
    back = molt__path_decode(coded);
    assert_string_equal(back, "/a \xff%\n/b");
    for (size_t i = 0; bad[i]; i++)
        assert_null(molt__path_decode(bad[i]));
    assert_null(molt__path_decode(NULL));
}

static void reasons(void **state)
{
    CLEANUP_REASONS struct molt_reasons r = MOLT_REASONS_INIT, back = MOLT_REASONS_INIT;
    CLEANUP_JSON struct molt_json *v = NULL, *bad = parse("[{\"what\": 1}]"), *obj = parse("{}");

    (void)state;
    molt_reasons_add(&r, "device open", "close it", "fd %d", 7);
    molt_reasons_add(&r, "device open", "close it", "fd %d", 7);
    assert_int_equal(r.n, 1);
    v = molt_reasons_json(&r);
    assert_int_equal(molt_reasons_parse(v, &back, NULL), 0);
    assert_int_equal(back.n, 1);
    assert_string_equal(back.v[0].detail, "fd 7");
    assert_int_equal(molt_reasons_parse(bad, &back, NULL), MOLT_E_PROTOCOL);
    assert_int_equal(molt_reasons_parse(obj, &back, NULL), MOLT_E_PROTOCOL);
}

static void restore_spec(void **state)
{
    pid_t ids[] = {812, 813, 900};
    struct molt_restore_spec s = {.unit = "counter.service",
                                  .images = "/run/x/images",
                                  .agent = "/usr/sbin/agent",
                                  .main_pid = 812,
                                  .id = ids,
                                  .ids = 3,
                                  .cwd = "/srv/a b",
                                  .overlay = true};
    struct molt_restore_spec back = {0}, same = {0};
    CLEANUP_JSON struct molt_json *v = molt_restore_spec_json(&s);

    (void)state;
    assert_int_equal(molt_restore_spec_parse(v, &back, NULL), 0);
    assert_string_equal(back.unit, s.unit);
    assert_string_equal(back.images, s.images);
    assert_string_equal(back.toolbox, MOLT_TOOLBOX_DIR);
    assert_string_equal(back.cwd, s.cwd);
    assert_int_equal(back.main_pid, 812);
    assert_int_equal(back.ids, 3);
    assert_int_equal(back.id[2], 900);
    assert_true(back.overlay);
    molt_restore_spec_clear(&back);
    molt_json_set_string(v, "cwd", "/");
    assert_int_equal(molt_restore_spec_parse(v, &same, NULL), 0);
    molt_restore_spec_clear(&same);
}

static void hostile_spec(void **state)
{
    static const char *const keys[][2] = {
        {"unit", "\"../x\""}, {"images", "\"rel\""}, {"agent", "\"/a/../b\""},
        {"main_pid", "1"},    {"main_pid", "\"x\""}, {"main_pid", "99999999999"},
        {"ids", "{}"},        {"ids", "[0]"},        {"ids", "[\"a\"]"},
        {"cwd", "\"x\""},     {"schema", "2"},       {"toolbox", "\"x\""}};
    pid_t id = 5;
    struct molt_restore_spec s = {
        .unit = "a.service", .images = "/i", .agent = "/a", .main_pid = 5, .id = &id, .ids = 1};

    (void)state;
    for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
        CLEANUP_JSON struct molt_json *v = molt_restore_spec_json(&s);
        struct molt_restore_spec out = {0};

        molt_json_set(v, keys[i][0], parse(keys[i][1]));
        assert_int_equal(molt_restore_spec_parse(v, &out, NULL), MOLT_E_PROTOCOL);
        assert_null(out.unit);
    }
}

static void dropin(void **state)
{
    struct molt_restore_spec s = {.unit = "counter.service", .agent = "/opt/a%b \"c\"/agent"};
    CLEANUP_FREE char *text = molt__dropin_text(&s, "/run/xenmolt/restore/counter.service/spec.json", "java");
    CLEANUP_FREE char *ident = NULL;

    (void)state;
    ident = molt__ident_of(
        "SyslogIdentifier=\nExecStart={ path=/usr/bin/java ; argv[]=/usr/bin/java -Xmx128m ; }\n");
    assert_string_equal(ident, "java");
    assert_null(molt__ident_of("SyslogIdentifier=mine\nExecStart={ path=/usr/bin/java ; }\n"));
    assert_null(molt__ident_of("ExecStart={ path=/opt/a\"b ; }\n"));
    assert_null(molt__ident_of(""));
    assert_null(molt__dropin_after("DropInPaths=\n"));
    assert_null(molt__dropin_after("DropInPaths=/etc/systemd/system/a.service.d/ballast.conf /usr/lib/systemd/system/service.d/zz.conf\n"));
    CLEANUP_FREE char *after = molt__dropin_after("DropInPaths=/usr/lib/systemd/system/service.d/10-x.conf /etc/systemd/system/a.service.d/zzzzz.conf\n");
    assert_string_equal(after, "/etc/systemd/system/a.service.d/zzzzz.conf");
    assert_non_null(strstr(text, "\nSyslogIdentifier=java\n"));
    assert_non_null(strstr(text, "\nType=forking\n"));
    assert_non_null(strstr(text, "\nPIDFile=/run/xenmolt/restore/counter.service/pid\n"));
    assert_non_null(strstr(text, "\nExecStart=\nExecStart=+\"/opt/a%%b \\\"c\\\"/agent\" restore-exec "
                                 "\"/run/xenmolt/restore/counter.service/spec.json\"\n"));
    assert_non_null(strstr(text, "\nRestart=no\n"));
}

static void criu_stats(void **state)
{
    /* magics, length 12, field 1 (dump) of 10 bytes: 1 = 300, 2 = 5, 7 = 129, 9 = 0 */
    static const unsigned char image[] = {0x40, 0x59, 0x10, 0x55, 0x06, 0x33, 0x09, 0x57,
                                          12,   0,    0,    0,    0x0a, 10,   0x08, 0xac,
                                          0x02, 0x10, 5,    0x38, 0x81, 0x01, 0x48, 0};
    struct molt_dump_stats s = {.restore_us = 9};
    unsigned char bad[sizeof(image)];

    (void)state;
    assert_int_equal(molt__stats_parse(image, sizeof(image), &s, NULL), 0);
    assert_int_equal(s.freezing_us, 300);
    assert_int_equal(s.frozen_us, 5);
    assert_int_equal(s.pages_written, 129);
    assert_int_equal(s.restore_us, 9);
    for (size_t len = 0; len < sizeof(image); len++)
        assert_int_equal(molt__stats_parse(image, len, &s, NULL), MOLT_E_PROTOCOL);
    memcpy(bad, image, sizeof(bad));
    bad[13] = 200;
    assert_int_equal(molt__stats_parse(bad, sizeof(bad), &s, NULL), MOLT_E_PROTOCOL);
}

static void own_process(void **state)
{
    pid_t ids[2] = {getpid(), 4194303};
    CLEANUP_FREE pid_t *taken = NULL;
    size_t n;

    (void)state;
    assert_int_equal(molt_pids_taken(ids, 2, &taken, &n, NULL), 0);
    assert_int_equal(n, 1);
    assert_int_equal(taken[0], getpid());
}

static void carried_files(void **state)
{
    static const char *const bad[] = {
        "{}",
        "[{\"path\": \"/etc/passwd\", \"file\": \"carry-0\", \"mode\": 384, \"uid\": 0, \"gid\": 0}]",
        "[{\"path\": \"/tmp/../etc/x\", \"file\": \"carry-0\", \"mode\": 384, \"uid\": 0, \"gid\": 0}]",
        "[{\"path\": \"/tmp/x\", \"file\": \"carry-0/../x\", \"mode\": 384, \"uid\": 0, \"gid\": 0}]",
        "[{\"path\": \"/tmp/x\", \"file\": \"dump.log\", \"mode\": 384, \"uid\": 0, \"gid\": 0}]",
        "[{\"path\": \"/tmp/x\", \"file\": \"carry-0\", \"mode\": 99999, \"uid\": 0, \"gid\": 0}]",
        "[{\"dirs\": [{\"path\": \"/etc/x\", \"mode\": 448, \"uid\": 0, \"gid\": 0}]}]",
        NULL};

    (void)state;
    assert_true(molt__carry_wanted("/tmp/hsperfdata_x/12"));
    assert_false(molt__carry_wanted("/tmpx"));
    for (size_t i = 0; bad[i]; i++) {
        CLEANUP_JSON struct molt_json *v = parse(bad[i]);

        assert_int_equal(molt__carry_place(v, "/nowhere", NULL), MOLT_E_PROTOCOL);
    }
}

/* A connection counts where both of its ends are in the tables, one own and the other not. */
static void local_connections(void **state)
{
    static const char head[] = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n";
    /* 127.0.0.1:1000 <-> 127.0.0.1:5432, a listener there, and a client from elsewhere */
    CLEANUP_FREE char *tcp = molt_xasprintf("%s"
                                            "   0: 0100007F:1538 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 90 1 0\n"
                                            "   1: 0100007F:03E8 0100007F:1538 01 00000000:00000000 00:00000000 00000000     0        0 91 1 0\n"
                                            "   2: 0B004D0A:1B58 01004D0A:9C40 01 00000000:00000000 00:00000000 00000000     0        0 92 1 0\n",
                                            head);
    /* the other end of the first in a socket for both families, and one of ::1 with itself */
    CLEANUP_FREE char *tcp6 = molt_xasprintf(
        "%s"
        "   0: 0000000000000000FFFF00000100007F:1538 0000000000000000FFFF00000100007F:03E8 01 00000000:00000000 00:00000000 00000000 0 0 93 1 0\n"
        "   1: 00000000000000000000000001000000:0050 00000000000000000000000001000000:1F90 08 00000000:00000000 00:00000000 00000000 0 0 94 1 0\n"
        "   2: 00000000000000000000000001000000:1F90 00000000000000000000000001000000:0050 05 00000000:00000000 00:00000000 00000000 0 0 0 1 0\n",
        head);
    const uint64_t client[] = {91, 92, 94}, both[] = {91, 93, 92}, server[] = {90, 93};
    unsigned port = 0;

    (void)state;
    assert_int_equal(molt__check_tcp_text(tcp, tcp6, client, 3, &port), 1);
    assert_int_equal(port, 5432);
    assert_int_equal(molt__check_tcp_text(tcp, tcp6, server, 2, &port), 1);
    assert_int_equal(port, 1000);
    assert_int_equal(molt__check_tcp_text(tcp, tcp6, both, 3, &port), 0);
    assert_int_equal(molt__check_tcp_text(NULL, NULL, both, 3, &port), 0);
}

static void add_u32(struct molt_strbuf *b, uint32_t v)
{
    molt_strbuf_add(b, &v, 4); /* CRIU's images have the machine's own order, which is this one */
}

/* CRIU's list of open files: a regular one with a size and a build-ID, and something else. */
static void files_without_sizes(void **state)
{
    CLEANUP_STRBUF struct molt_strbuf image = MOLT_STRBUF_INIT, want = MOLT_STRBUF_INIT, got = MOLT_STRBUF_INIT;

    (void)state;
    for (int sizes = 1; sizes >= 0; sizes--) {
        CLEANUP_STRBUF struct molt_strbuf reg = MOLT_STRBUF_INIT, entry = MOLT_STRBUF_INIT, other = MOLT_STRBUF_INIT;
        struct molt_strbuf *to = sizes ? &image : &want;

        molt__pb_int(&reg, 1, 7);
        molt__pb_string(&reg, 6, "/var/log/x");
        if (sizes) {
            molt__pb_int(&reg, 8, 123456789012);
            molt__pb_int(&reg, 11, 4711);
        }
        molt__pb_int(&reg, 10, 0644);
        molt__pb_int(&entry, 1, 1);
        molt__pb_int(&entry, 2, 7);
        molt__pb_bytes(&entry, 3, reg.s, reg.len);
        molt__pb_int(&other, 1, 2);
        molt__pb_int(&other, 8, 5); /* of another message, where it is no size */
        add_u32(to, 0x54564319);
        add_u32(to, 0x56303138);
        add_u32(to, (uint32_t)entry.len);
        molt_strbuf_add(to, entry.s, entry.len);
        add_u32(to, (uint32_t)other.len);
        molt_strbuf_add(to, other.s, other.len);
    }
    assert_int_equal(molt__files_without_sizes(image.s, image.len, &got, NULL), 0);
    assert_int_equal(got.len, want.len);
    assert_memory_equal(got.s, want.s, want.len);
    for (size_t cut = 0; cut < image.len; cut++) {
        CLEANUP_STRBUF struct molt_strbuf b = MOLT_STRBUF_INIT;
        int r = molt__files_without_sizes(image.s, cut, &b, NULL);

        assert_true(r == MOLT_E_PROTOCOL || r == 0); /* 0: cut between two entries */
    }
    image.s[0] ^= 1;
    assert_int_equal(molt__files_without_sizes(image.s, image.len, &got, NULL), MOLT_E_PROTOCOL);
}

/* Connects, and sends, as CRIU does; exit status of a child: 0, or the number of the pair of addresses that failed, times ten where it sent. */
static int repair_all(void)
{
    static const struct {
        int family;
        const char *from, *to;
    } v[] = {{AF_INET, "10.77.0.11", "10.77.0.1"}, {AF_INET6, "::ffff:10.77.0.11", "::ffff:192.0.2.7"}, {AF_INET6, "fd77::11", "2001:db8::1"}, {AF_INET, "127.0.0.1", "127.0.0.1"}};

    for (int i = 0; i < 4; i++) {
        struct sockaddr_storage a[2] = {{0}, {0}};
        int sk = socket(v[i].family, SOCK_STREAM, 0), one = 1;

        for (int k = 0; k < 2; k++) {
            const char *text = k ? v[i].to : v[i].from;

            a[k].ss_family = (sa_family_t)v[i].family;
            if (v[i].family == AF_INET) {
                inet_pton(AF_INET, text, &((struct sockaddr_in *)&a[k])->sin_addr);
                ((struct sockaddr_in *)&a[k])->sin_port = htons((uint16_t)(7000 + k));
            } else {
                inet_pton(AF_INET6, text, &((struct sockaddr_in6 *)&a[k])->sin6_addr);
                ((struct sockaddr_in6 *)&a[k])->sin6_port = htons((uint16_t)(7000 + k));
            }
        }
        if (setsockopt(sk, IPPROTO_TCP, TCP_REPAIR, &one, sizeof(one)) < 0 || bind(sk, (struct sockaddr *)&a[0], sizeof(a[0])) < 0 ||
            connect(sk, (struct sockaddr *)&a[1], sizeof(a[1])) < 0)
            return i + 1;
        /* Out of repair mode what is sent goes out; an answer would end the connection. */
        for (int k = 0; k < 3; k++) {
            (void)setsockopt(sk, IPPROTO_TCP, TCP_REPAIR, &(int){0}, sizeof(int));
            if (send(sk, "not sent yet", 12, MSG_NOSIGNAL) != 12)
                return 10 * (i + 1) + k;
            usleep(20000);
        }
        close(sk);
    }
    return 0;
}

static void a_trial_finds_a_way_to_every_peer(void **state)
{
    int status;
    pid_t pid;

    (void)state;
    if (getuid() != 0 || access("/usr/sbin/ip", X_OK) < 0)
        skip(); /* a network namespace is root's to make */
    pid = fork();
    if (pid == 0)
        _exit(molt__isolate_network(NULL) < 0 ? 100 : repair_all());
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}

/* An odd timestamp of a connection becomes even in its image; nothing else changes, and an even one stays. */
static void timestamps_lose_their_lowest_bit(void **state)
{
    char dir[] = "/tmp/tcpclock-XXXXXX";
    static const uint64_t stamps[] = {4000000001u, 4000000000u, 1};

    (void)state;
    assert_non_null(mkdtemp(dir));
    for (size_t i = 0; i < 3; i++) {
        CLEANUP_STRBUF struct molt_strbuf entry = MOLT_STRBUF_INIT, image = MOLT_STRBUF_INIT, want_entry = MOLT_STRBUF_INIT, want = MOLT_STRBUF_INIT;
        CLEANUP_FREE char *path = molt_xasprintf("%s/tcp-stream-%zx.img", dir, i + 10), *got = NULL;
        size_t len;

        for (unsigned field = 1; field <= 17; field++) {
            molt__pb_int(&entry, field, field == 9 ? stamps[i] : 1000 + field);
            molt__pb_int(&want_entry, field, field == 9 ? stamps[i] & ~1ull : 1000 + field);
        }
        molt__image_begin(&image, MOLT_IMAGE_TCP_STREAM);
        molt__image_put(&image, entry.s, entry.len);
        molt_strbuf_add(&image, "HHqueue", 7);
        molt__image_begin(&want, MOLT_IMAGE_TCP_STREAM);
        molt__image_put(&want, want_entry.s, want_entry.len);
        molt_strbuf_add(&want, "HHqueue", 7);
        assert_int_equal(molt_write_file(path, image.s, image.len, 0600, NULL), 0);
        assert_int_equal(molt__tcp_clear_bit(dir, NULL), 0);
        assert_int_equal(molt_read_file(path, 65536, &got, &len, NULL), 0);
        assert_int_equal(len, want.len);
        assert_memory_equal(got, want.s, len);
    }
    CLEANUP_FREE char *bad = molt_xasprintf("%s/tcp-stream-1.img", dir);

    assert_int_equal(molt_write_file(bad, "no image", 8, 0600, NULL), 0);
    assert_int_equal(molt__tcp_clear_bit(dir, NULL), MOLT_E_PROTOCOL);
    assert_int_equal(molt_remove_tree(dir, NULL), 0);
}

/* Linux 6.7 gave the bit its meaning. */
static void the_kernel_tells_what_the_bit_means(void **state)
{
    struct utsname u;
    int major = 0, minor = 0;

    (void)state;
    if (getuid() != 0)
        skip(); /* TCP_REPAIR is root's */
    assert_int_equal(uname(&u), 0);
    assert_int_equal(sscanf(u.release, "%d.%d", &major, &minor), 2);
    assert_int_equal(molt__tcp_bit_means_usec(), major > 6 || (major == 6 && minor >= 7));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(unit_names),    cmocka_unit_test(systemctl_output), cmocka_unit_test(proc_stat),
        cmocka_unit_test(cgroups),       cmocka_unit_test(maps_lines),       cmocka_unit_test(tcp_table),
        cmocka_unit_test(paths_in_json), cmocka_unit_test(reasons),          cmocka_unit_test(restore_spec),
        cmocka_unit_test(hostile_spec),  cmocka_unit_test(dropin),           cmocka_unit_test(criu_stats),
        cmocka_unit_test(own_process),   cmocka_unit_test(carried_files),    cmocka_unit_test(local_connections), cmocka_unit_test(files_without_sizes), cmocka_unit_test(a_trial_finds_a_way_to_every_peer),
        cmocka_unit_test(timestamps_lose_their_lowest_bit), cmocka_unit_test(the_kernel_tells_what_the_bit_means),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
