/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A service of many kinds of things that a process may hold, for the test suite: an epoll loop, a child on socket pairs and pipes,
 * threads, timers, socket pairs with data in them, locks, mapped, deleted and memory files, inotify, IPv6, UDP, and a unix socket that was renamed. Its protocol is that of Counter.java, and
 *   "CHECK"    -> "OK" or "BAD what": looks at all it holds
 *   "FLOOD N"  -> N bytes of a pattern; what the client sent meanwhile (N bytes as well) is read after that, and "SUM n" tells how
 *                 many of them were right: until the client reads, the queues of both directions are full
 *   "TELL"     -> a line with a number each second, for ever: for a client that has closed its direction
 *   "LATER"    -> "LATER n": how many datagrams waited at the port above it, each of which goes back to its sender now: until then nobody reads them
 * UDP on the same port: "N" -> "N COUNT".
 */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define SECRET "what was written before the move"
#define RENAMED "/run/kinds/socket"
#define THREADS 8
#define LINE 256
#define WAIT_MS 5000 /* for what may not have had its turn yet */
#define HOUR 3600
#define ONCE_S 2
#define MESSAGE 32

struct shared { /* with the child, and in files */
    uint64_t counted;
};

struct connection {
    int fd;
    char line[LINE];
    size_t have;
    unsigned long long own;
    unsigned long flood, flood_sent, flood_read, flood_right;
    bool tells;
    unsigned long told;
};

struct kept { /* a socket pair in which something waits */
    int type, fd[2];
    uint64_t in, out;
};

struct service {
    int epoll, listener, udp, later, inotify, watch, signals, event, once, every, deleted, memory, lock, flocked, tmpfs, renamed;
    int child[2], seq[2], kept[2]; /* socket pairs with the child, and a pipe in which something waits */
    pid_t pid, child_pid;
    struct shared *anon, *file, *shm;
    unsigned long long global, udp_count, armed, fired, ticks;
    uint64_t kept_in, kept_out;
    struct kept pair[3];
    uint64_t begun_ns, once_ns; /* when it began, and when the one-shot timer was armed */
    bool early;                 /* that one fired before its time */
    timer_t hour;               /* fires after an hour: not while a test runs */
    pthread_t thread[THREADS];
    _Atomic uint64_t beats[THREADS];
    _Atomic int backwards;
};

static struct service sv;

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static uint64_t mono_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static char pattern(unsigned long i) { return (char)('a' + i % 23); }

/* ---- the child: counts what it is asked to ---- */

static void child_main(int sk, int seq, struct shared *anon)
{
    uint64_t n;
    while (read(sk, &n, sizeof(n)) == sizeof(n)) {
        anon->counted = n + 1;
        n++;
        if (write(seq, &n, sizeof(n)) != sizeof(n))
            break;
    }
    _exit(0);
}

static bool count_by_child(unsigned long long *global)
{
    uint64_t n = *global;
    if (write(sv.child[0], &n, sizeof(n)) != sizeof(n) || read(sv.seq[0], &n, sizeof(n)) != sizeof(n) || n != *global + 1)
        return false;
    *global = n;
    sv.file->counted = sv.shm->counted = n;
    return true;
}

static void *beat(void *arg)
{
    size_t i = (size_t)arg;
    for (uint64_t last = 0;;) {
        uint64_t now = mono_ns();
        if (now < last)
            sv.backwards = 1;
        last = now;
        sv.beats[i]++;
        nanosleep(&(struct timespec){.tv_nsec = 500000000}, NULL);
    }
    return NULL;
}

/* ---- CHECK ---- */

static const char *check_files(void)
{
    char text[sizeof(SECRET)];
    struct shared on_disk;
    const int fds[] = {sv.deleted, sv.memory, sv.tmpfs};
    static const char *const names[] = {"deleted file", "memory file", "file on a tmpfs"};
    for (size_t i = 0; i < 3; i++)
        if (pread(fds[i], text, sizeof(text), 0) != sizeof(text) || memcmp(text, SECRET, sizeof(text)))
            return names[i];
    if (sv.file->counted != sv.global || sv.shm->counted != sv.global || sv.anon->counted != sv.global)
        return "shared memory";
    int fd = open("map", O_RDONLY | O_CLOEXEC);
    ssize_t n = read(fd, &on_disk, sizeof(on_disk));
    close(fd);
    if (n != sizeof(on_disk) || on_disk.counted != sv.global)
        return "mapped file and file differ";
    fd = open("/dev/shm/kinds", O_RDONLY | O_CLOEXEC);
    n = read(fd, &on_disk, sizeof(on_disk));
    close(fd);
    return n != sizeof(on_disk) || on_disk.counted != sv.global ? "mapped file in /dev/shm" : NULL;
}

static const char *check_locks(void)
{
    struct flock l = {.l_type = F_WRLCK};
    pid_t pid = fork(); /* a lock of one's own is no obstacle */
    if (pid == 0) {
        int fd = open("lock", O_RDWR), other = open("flock", O_RDWR);
        if (fcntl(fd, F_GETLK, &l) < 0 || l.l_type == F_UNLCK || l.l_pid != sv.pid)
            _exit(1);
        _exit(flock(other, LOCK_EX | LOCK_NB) == 0 ? 2 : 0);
    }
    int status = 0;
    waitpid(pid, &status, 0);
    return status == 0 ? NULL : WEXITSTATUS(status) == 1 ? "POSIX lock" : "flock";
}

static const char *check_events(void)
{
    char buf[4096];
    uint64_t one = 1, got = 0;
    int fd = open("watched/x", O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    if (fd < 0)
        return "watched directory";
    close(fd);
    unlink("watched/x");
    ssize_t n = read(sv.inotify, buf, sizeof(buf));
    if (n < (ssize_t)sizeof(struct inotify_event) || ((struct inotify_event *)buf)->wd != sv.watch)
        return "inotify";
    if (write(sv.event, &one, sizeof(one)) != sizeof(one) || read(sv.event, &got, sizeof(got)) != sizeof(got) || got != 8)
        return "eventfd";
    got = 7;
    (void)!write(sv.event, &got, sizeof(got)); /* 7 stay in it from one check to the next */
    kill(getpid(), SIGUSR1);
    struct signalfd_siginfo si;
    return read(sv.signals, &si, sizeof(si)) != sizeof(si) || si.ssi_signo != SIGUSR1 ? "signalfd" : NULL;
}

static const char *check_pipe(void)
{
    uint64_t n;
    for (int i = 0; i < 16; i++) {
        if (read(sv.kept[0], &n, sizeof(n)) != sizeof(n) || n != sv.kept_out++)
            return "pipe with data in it";
        n = sv.kept_in++;
        if (write(sv.kept[1], &n, sizeof(n)) != sizeof(n))
            return "pipe";
    }
    return NULL;
}

static void message(char text[MESSAGE], const struct kept *k, uint64_t n)
{
    memset(text, 0, MESSAGE);
    snprintf(text, MESSAGE, "pair %d message %llu", k->type, (unsigned long long)n);
}

static bool keep(struct kept *k)
{
    char text[MESSAGE];
    message(text, k, k->in++);
    return send(k->fd[1], text, MESSAGE, 0) == MESSAGE;
}

/* Each message once, whole, in order. */
static const char *check_pairs(void)
{
    char text[2 * MESSAGE], want[MESSAGE];
    for (size_t p = 0; p < 3; p++)
        for (int i = 0; i < 4; i++) {
            message(want, &sv.pair[p], sv.pair[p].out++);
            const size_t room = sv.pair[p].type == SOCK_STREAM ? MESSAGE : sizeof(text);
            if (recv(sv.pair[p].fd[0], text, room, MSG_DONTWAIT) != MESSAGE || memcmp(text, want, MESSAGE) || !keep(&sv.pair[p]))
                return sv.pair[p].type == SOCK_DGRAM ? "datagram pair with data in it" : sv.pair[p].type == SOCK_STREAM ? "stream pair with data in it" : "seqpacket pair with data in it";
        }
    return NULL;
}

/* A unix socket whose file was renamed after it was bound: it answers by the second name, and there is nothing by the first. */
static const char *check_renamed(void)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX, .sun_path = RENAMED}, own;
    socklen_t len = sizeof(own);
    struct stat st;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), got = -1;
    bool ok = connect(fd, (struct sockaddr *)&a, sizeof(a)) == 0 && (got = accept(sv.renamed, NULL, NULL)) >= 0;
    close(fd);
    close(got);
    if (!ok || getsockname(sv.renamed, (struct sockaddr *)&own, &len) < 0 || strcmp(own.sun_path, RENAMED ".new"))
        return "renamed unix socket";
    return lstat(RENAMED, &st) < 0 || (st.st_mode & 07777) != 0640 || lstat(RENAMED ".new", &st) == 0 ? "file of the renamed unix socket" : NULL;
}

static void on_every(void);
static void on_once(void);

/* Since the last look it has fired, or does so now. */
static bool fires(int fd, void (*handle)(void), const unsigned long long *counter, unsigned long long *last)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    int r;
    do
        r = *counter == *last ? poll(&p, 1, WAIT_MS) : 0;
    while (r < 0 && errno == EINTR); /* the move came just now */
    if (r == 1)
        handle();
    bool on = *counter != *last;
    *last = *counter;
    return on;
}

/* Since it began. */
static unsigned long long seconds(void) { return (mono_ns() - sv.begun_ns) / 1000000000u; }

static const char *check_timers(void)
{
    static unsigned long long ticks, fired;
    static time_t left = HOUR + 1;
    struct itimerspec t;
    sigset_t set;
    if (sv.early)
        return "one-shot timer before its time";
    if (sv.armed - sv.fired > 1 || !fires(sv.once, on_once, &sv.fired, &fired))
        return "one-shot timer";
    if (sv.ticks > seconds() + 1)
        return "timer more often than time has passed";
    if (!fires(sv.every, on_every, &sv.ticks, &ticks))
        return "timer";
    sigpending(&set);
    if (timer_gettime(sv.hour, &t) < 0 || t.it_value.tv_sec <= 0 || t.it_value.tv_sec > left || sigismember(&set, SIGUSR2))
        return "timer of an hour";
    left = t.it_value.tv_sec;
    return (unsigned long long)(HOUR - left) > seconds() + 1 ? "timer of an hour, too fast" : NULL;
}

static const char *check_clocks(void)
{
    static uint64_t last[THREADS];
    if (sv.backwards)
        return "the monotonic clock jumped backwards";
    for (size_t i = 0; i < THREADS; i++) {
        for (int ms = 0; sv.beats[i] == last[i] && ms < WAIT_MS; ms += 100)
            usleep(100000);
        if (sv.beats[i] <= last[i])
            return "threads";
        last[i] = sv.beats[i];
    }
    return check_timers();
}

/* Whoever copies what waits at a socket asks for more than this program did. */
static const char *check_options(void)
{
    int info = 1, offset = 1;
    socklen_t len = sizeof(int);
    if (getsockopt(sv.later, IPPROTO_IPV6, IPV6_RECVPKTINFO, &info, &len) < 0 || getsockopt(sv.later, SOL_SOCKET, SO_PEEK_OFF, &offset, &len) < 0)
        return "no options of a socket";
    return info != 0 || offset != -1 ? "options of a socket" : NULL;
}

static const char *check(void)
{
    static const char *(*const checks[])(void) = {check_files, check_locks, check_events, check_pipe, check_pairs, check_renamed, check_options, check_clocks};
    for (size_t i = 0; i < sizeof(checks) / sizeof(checks[0]); i++) {
        const char *bad = checks[i]();
        if (bad)
            return bad;
    }
    return getpid() != sv.pid ? "process id" : NULL;
}

/* ---- connections ---- */

/* Who only listens is told once a second; the list is as long as the service has such clients. */
static struct connection *telling[16];

static void say(struct connection *c, const char *fmt, ...)
{
    char text[LINE];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    if (send(c->fd, text, (size_t)n, MSG_NOSIGNAL) != n)
        fprintf(stderr, "send: %m\n");
}

static int send_back(void)
{
    struct sockaddr_storage from;
    socklen_t len = sizeof(from);
    char buf[LINE];
    int count = 0;
    for (ssize_t n; (n = recvfrom(sv.later, buf, sizeof(buf), 0, (struct sockaddr *)&from, &len)) >= 0; len = sizeof(from))
        count += sendto(sv.later, buf, (size_t)n, 0, (struct sockaddr *)&from, len) == n;
    return count;
}

static void answer(struct connection *c, const char *line)
{
    char cid[65];
    unsigned long long seq;
    int end = 0;
    if (!strcmp(line, "CHECK")) {
        const char *bad = check();
        printf("kinds: checked: %s\n", bad ? bad : "all is there");
        say(c, bad ? "BAD %s\n" : "OK\n", bad);
    } else if (!strcmp(line, "STAT")) {
        say(c, "STAT uptime_s=%llu pid=%d ticks=%llu global=%llu\n", (unsigned long long)(mono_ns() / 1000000000u), (int)sv.pid, sv.ticks, sv.global);
    } else if (sscanf(line, "FLOOD %lu", &c->flood) == 1) {
        c->flood_sent = c->flood_read = c->flood_right = 0;
    } else if (!strcmp(line, "TELL")) {
        for (size_t i = 0; i < 16 && !c->tells; i++)
            if ((c->tells = !telling[i]))
                telling[i] = c;
    } else if (!strcmp(line, "LATER")) {
        say(c, "LATER %d\n", send_back());
    } else if (sscanf(line, "%64s %llu%n", cid, &seq, &end) != 2 || line[end]) {
        say(c, "ERR syntax\n");
    } else if (seq != c->own + 1) {
        say(c, "ERR seq %llu after %llu\n", seq, c->own);
    } else if (!count_by_child(&sv.global)) {
        say(c, "ERR child\n");
    } else {
        c->own = seq;
        say(c, "%s %llu %llu %llu %d\n", cid, seq, c->own, sv.global, (int)sv.pid);
    }
}

static void want(struct connection *c, unsigned events)
{
    struct epoll_event e = {.events = events, .data.ptr = c};
    epoll_ctl(sv.epoll, EPOLL_CTL_MOD, c->fd, &e);
}

/* First all is sent; then as much is read. */
static void flood(struct connection *c)
{
    char buf[65536];
    while (c->flood_sent < c->flood) {
        size_t n = 0;
        for (; n < sizeof(buf) && c->flood_sent + n < c->flood; n++)
            buf[n] = pattern(c->flood_sent + n);
        ssize_t sent = send(c->fd, buf, n, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent < 0)
            return;
        c->flood_sent += (unsigned long)sent;
    }
    want(c, EPOLLIN);
    while (c->flood_read < c->flood) {
        size_t left = c->flood - c->flood_read;
        ssize_t n = recv(c->fd, buf, left < sizeof(buf) ? left : sizeof(buf), MSG_DONTWAIT);
        if (n <= 0)
            return;
        for (ssize_t i = 0; i < n; i++)
            c->flood_right += buf[i] == pattern(c->flood_read++);
    }
    c->flood = 0;
    say(c, "SUM %lu\n", c->flood_right);
}

static void drop(struct connection *c)
{
    for (size_t i = 0; i < 16; i++)
        if (telling[i] == c)
            telling[i] = NULL;
    close(c->fd);
    free(c);
}

static void hear(struct connection *c)
{
    ssize_t n = recv(c->fd, c->line + c->have, sizeof(c->line) - 1 - c->have, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n == 0 && c->tells) { /* it only listens now */
        want(c, 0);
        return;
    }
    if (n <= 0) {
        drop(c);
        return;
    }
    c->have += (size_t)n;
    c->line[c->have] = 0;
    char *line = c->line, *end;
    while ((end = strchr(line, '\n'))) {
        *end = 0;
        answer(c, line);
        line = end + 1;
        if (c->flood) { /* what follows is its pattern */
            size_t left = c->have - (size_t)(line - c->line);
            for (size_t i = 0; i < left; i++)
                c->flood_right += line[i] == pattern(c->flood_read++);
            c->have = 0;
            want(c, EPOLLOUT);
            return;
        }
    }
    c->have -= (size_t)(line - c->line);
    memmove(c->line, line, c->have);
}

static void tell_all(void)
{
    for (size_t i = 0; i < 16; i++)
        if (telling[i])
            say(telling[i], "%lu\n", ++telling[i]->told);
}

static void take_connection(void)
{
    int fd = accept4(sv.listener, NULL, NULL, SOCK_CLOEXEC);
    if (fd < 0)
        return;
    struct connection *c = calloc(1, sizeof(*c));
    struct epoll_event e = {.events = EPOLLIN, .data.ptr = c};
    c->fd = fd;
    epoll_ctl(sv.epoll, EPOLL_CTL_ADD, fd, &e);
}

static void take_datagram(void)
{
    struct sockaddr_storage from;
    socklen_t len = sizeof(from);
    char buf[LINE], out[2 * LINE];
    ssize_t n = recvfrom(sv.udp, buf, sizeof(buf) - 1, 0, (struct sockaddr *)&from, &len);
    if (n <= 0)
        return;
    buf[n] = 0;
    int m = snprintf(out, sizeof(out), "%s %llu", buf, ++sv.udp_count);
    (void)!sendto(sv.udp, out, (size_t)m, 0, (struct sockaddr *)&from, len);
}

static void arm_once(void)
{
    struct itimerspec t = {.it_value = {.tv_sec = ONCE_S}};
    sv.armed++;
    sv.once_ns = mono_ns();
    timerfd_settime(sv.once, 0, &t, NULL);
}

static void on_once(void)
{
    uint64_t n;
    if (read(sv.once, &n, sizeof(n)) != sizeof(n))
        return; /* a look has had it */
    sv.fired += n == 1;
    sv.early |= mono_ns() < sv.once_ns + ONCE_S * UINT64_C(1000000000);
    arm_once();
}

static void on_every(void)
{
    uint64_t n;
    if (read(sv.every, &n, sizeof(n)) == sizeof(n)) {
        sv.ticks += n;
        tell_all();
    }
}

/* ---- beginning ---- */

static struct shared *map_file(const char *path)
{
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0 || ftruncate(fd, 65536) < 0)
        die(path);
    struct shared *s = mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    s->counted = 0;
    return s;
}

static int secret_file(const char *path, bool gone)
{
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0 || write(fd, SECRET, sizeof(SECRET)) != sizeof(SECRET))
        die(path);
    if (gone)
        unlink(path);
    return fd;
}

static void make_files(void)
{
    struct flock l = {.l_type = F_WRLCK};
    sv.anon = mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    sv.file = map_file("map");
    sv.shm = map_file("/dev/shm/kinds");
    sv.deleted = secret_file("deleted", true);
    sv.tmpfs = secret_file("/run/kinds/file", false);
    sv.memory = memfd_create("kinds", MFD_CLOEXEC);
    if (sv.memory < 0 || write(sv.memory, SECRET, sizeof(SECRET)) != sizeof(SECRET))
        die("memfd");
    sv.lock = open("lock", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    sv.flocked = open("flock", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fcntl(sv.lock, F_SETLK, &l) < 0 || flock(sv.flocked, LOCK_EX | LOCK_NB) < 0)
        die("lock");
    (void)!system("mkdir -p watched");
    sv.inotify = inotify_init1(IN_CLOEXEC);
    sv.watch = inotify_add_watch(sv.inotify, "watched", IN_CREATE);
    sv.event = eventfd(7, EFD_CLOEXEC);
}

static void make_child(void)
{
    uint64_t n;
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, sv.child) < 0 || socketpair(AF_UNIX, SOCK_SEQPACKET, 0, sv.seq) < 0 || pipe(sv.kept) < 0)
        die("pairs");
    sv.child_pid = fork();
    if (sv.child_pid == 0) {
        close(sv.child[0]);
        close(sv.seq[0]);
        child_main(sv.child[1], sv.seq[1], sv.anon);
    }
    close(sv.child[1]);
    close(sv.seq[1]);
    for (int i = 0; i < 16; i++) {
        n = sv.kept_in++;
        if (write(sv.kept[1], &n, sizeof(n)) != sizeof(n))
            die("pipe");
    }
}

static void make_pairs(void)
{
    static const int types[] = {SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET};
    for (size_t p = 0; p < 3; p++) {
        sv.pair[p].type = types[p];
        if (socketpair(AF_UNIX, types[p], 0, sv.pair[p].fd) < 0)
            die("pairs");
        for (int i = 0; i < 4; i++)
            if (!keep(&sv.pair[p]))
                die("pairs");
    }
}

static void make_hour(void)
{
    struct sigevent e = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR2};
    struct itimerspec t = {.it_value = {.tv_sec = HOUR}};
    if (timer_create(CLOCK_MONOTONIC, &e, &sv.hour) < 0 || timer_settime(sv.hour, 0, &t, NULL) < 0)
        die("timer");
}

static void add(int fd, void *what)
{
    struct epoll_event e = {.events = EPOLLIN, .data.ptr = what};
    if (epoll_ctl(sv.epoll, EPOLL_CTL_ADD, fd, &e) < 0)
        die("epoll");
}

static void make_sockets(int port)
{
    struct sockaddr_in6 a = {.sin6_family = AF_INET6, .sin6_port = htons((uint16_t)port)}, later = {.sin6_family = AF_INET6, .sin6_port = htons((uint16_t)(port + 1))}; /* both families */
    int one = 1;
    sv.listener = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
    setsockopt(sv.listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    sv.udp = socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    sv.later = socket(AF_INET6, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    struct sockaddr_un u = {.sun_family = AF_UNIX, .sun_path = RENAMED ".new"};
    sv.renamed = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    unlink(u.sun_path);
    if (bind(sv.renamed, (struct sockaddr *)&u, sizeof(u)) < 0 || chmod(u.sun_path, 0640) < 0 || listen(sv.renamed, 8) < 0 || rename(u.sun_path, RENAMED) < 0)
        die(RENAMED);
    if (bind(sv.listener, (struct sockaddr *)&a, sizeof(a)) < 0 || listen(sv.listener, 128) < 0 || bind(sv.udp, (struct sockaddr *)&a, sizeof(a)) < 0 ||
        bind(sv.later, (struct sockaddr *)&later, sizeof(later)) < 0)
        die("bind");
}

static void handle(const struct epoll_event *e)
{
    if (e->data.ptr == &sv.listener) {
        take_connection();
    } else if (e->data.ptr == &sv.udp) {
        take_datagram();
    } else if (e->data.ptr == &sv.every) {
        on_every();
    } else if (e->data.ptr == &sv.once) {
        on_once();
    } else {
        struct connection *c = e->data.ptr;
        if (c->flood)
            flood(c);
        else if (e->events & (EPOLLERR | EPOLLHUP))
            drop(c);
        else
            hear(c);
    }
}

int main(int argc, char **argv)
{
    sigset_t set;
    struct itimerspec second = {.it_interval = {.tv_sec = 1}, .it_value = {.tv_sec = 1}};
    setvbuf(stdout, NULL, _IOLBF, 0);
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    sigaddset(&set, SIGUSR2);
    sigprocmask(SIG_BLOCK, &set, NULL);
    sigdelset(&set, SIGUSR2); /* stays pending, should it come */
    sv.pid = getpid();
    sv.begun_ns = mono_ns();
    make_files();
    make_child();
    make_pairs();
    make_hour();
    make_sockets(argc > 1 ? atoi(argv[1]) : 7100);
    sv.signals = signalfd(-1, &set, SFD_CLOEXEC);
    sv.every = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    sv.once = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    timerfd_settime(sv.every, 0, &second, NULL);
    arm_once();
    sv.epoll = epoll_create1(EPOLL_CLOEXEC);
    add(sv.listener, &sv.listener);
    add(sv.udp, &sv.udp);
    add(sv.every, &sv.every);
    add(sv.once, &sv.once);
    for (size_t i = 0; i < THREADS; i++)
        pthread_create(&sv.thread[i], NULL, beat, (void *)i);
    printf("kinds: pid %d\n", (int)sv.pid);
    for (;;) {
        struct epoll_event e[16];
        int n = epoll_wait(sv.epoll, e, 16, -1);
        for (int i = 0; i < n; i++)
            handle(&e[i]);
    }
}
