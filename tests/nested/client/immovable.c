/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * immovable KIND [ARGUMENT]: a service that holds one thing which cannot move, and does nothing.
 *   deaf PORT   listens, and never accepts
 *   file PATH   has it open
 *   mapped PATH maps it
 *   unix PATH   is connected to that socket
 *   sysv        has a segment of System V shared memory attached
 *   traced      traces a child
 *   packet raw uevent alg vsock mptcp: a socket of that kind
 *   uring perf bpf userfaultfd pidfd fanotify: that object of the kernel's
 * Exit status 77: this kernel has no such thing.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/io_uring.h>
#include <linux/netlink.h>
#include <linux/perf_event.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/fanotify.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

static int deaf(const char *port)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((unsigned short)atoi(port))};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    return bind(fd, (struct sockaddr *)&a, sizeof(a)) < 0 || listen(fd, 8) < 0 ? -1 : fd;
}

static int mapped(const char *path)
{
    int fd = open(path, O_RDWR);
    void *p = fd < 0 ? MAP_FAILED : mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    return p == MAP_FAILED ? -1 : 0;
}

static int to_unix(const char *path)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    snprintf(a.sun_path, sizeof(a.sun_path), "%s", path);
    return connect(fd, (struct sockaddr *)&a, sizeof(a)) < 0 ? -1 : fd;
}

static int uring(void)
{
    struct io_uring_params p = {0};
    return (int)syscall(SYS_io_uring_setup, 4, &p);
}

static int perf(void)
{
    struct perf_event_attr a = {.type = PERF_TYPE_SOFTWARE, .size = sizeof(a), .config = PERF_COUNT_SW_TASK_CLOCK};
    return (int)syscall(SYS_perf_event_open, &a, 0, -1, -1, 0);
}

static int bpf(void)
{
    union bpf_attr a = {.map_type = BPF_MAP_TYPE_ARRAY, .key_size = 4, .value_size = 4, .max_entries = 1};
    return (int)syscall(SYS_bpf, BPF_MAP_CREATE, &a, sizeof(a));
}

static int traced(void)
{
    pid_t pid = fork();
    for (; pid == 0;)
        pause();
    return pid < 0 ? -1 : (int)ptrace(PTRACE_SEIZE, pid, NULL, NULL);
}

static int hold(const char *kind, const char *arg)
{
    if (!strcmp(kind, "deaf"))
        return deaf(arg);
    if (!strcmp(kind, "file"))
        return open(arg, O_RDONLY);
    if (!strcmp(kind, "mapped"))
        return mapped(arg);
    if (!strcmp(kind, "unix"))
        return to_unix(arg);
    if (!strcmp(kind, "sysv"))
        return shmat(shmget(IPC_PRIVATE, 4096, 0600), NULL, 0) == (void *)-1 ? -1 : 0;
    if (!strcmp(kind, "traced"))
        return traced();
    if (!strcmp(kind, "packet"))
        return socket(AF_PACKET, SOCK_RAW, htons(ETH_P_ALL));
    if (!strcmp(kind, "raw"))
        return socket(AF_INET, SOCK_RAW, IPPROTO_ICMP);
    if (!strcmp(kind, "uevent"))
        return socket(AF_NETLINK, SOCK_DGRAM, NETLINK_KOBJECT_UEVENT);
    if (!strcmp(kind, "alg"))
        return socket(AF_ALG, SOCK_SEQPACKET, 0);
    if (!strcmp(kind, "vsock"))
        return socket(AF_VSOCK, SOCK_STREAM, 0);
    if (!strcmp(kind, "mptcp"))
        return socket(AF_INET, SOCK_STREAM, 262 /* IPPROTO_MPTCP */);
    if (!strcmp(kind, "uring"))
        return uring();
    if (!strcmp(kind, "perf"))
        return perf();
    if (!strcmp(kind, "bpf"))
        return bpf();
    if (!strcmp(kind, "userfaultfd"))
        return (int)syscall(SYS_userfaultfd, O_CLOEXEC);
    if (!strcmp(kind, "pidfd"))
        return (int)syscall(SYS_pidfd_open, getpid(), 0);
    if (!strcmp(kind, "fanotify"))
        return fanotify_init(FAN_CLASS_NOTIF, O_RDONLY);
    errno = EINVAL;
    return -1;
}

int main(int argc, char **argv)
{
    if (argc < 2 || hold(argv[1], argc > 2 ? argv[2] : "") < 0) {
        const int e = errno;
        perror(argc < 2 ? "immovable" : argv[1]);
        return e == EAFNOSUPPORT || e == EPROTONOSUPPORT || e == ENOSYS || e == ENOPROTOOPT ? 77 : 1;
    }
    for (;;)
        pause();
}
