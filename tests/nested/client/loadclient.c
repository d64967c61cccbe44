/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Load on the counting service over N persistent connections, and a verdict on what its clients saw.
 *
 * Each connection sends its next number only after the reply to the one before, and never reconnects: a reset is a
 * finding. The report says how long any client ever waited and how long they do as a rule, and what was lost, doubled or out of order. In C, because
 * it shares an emulated processor with the guests that it watches.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define GAP_MS 500.0   /* waits longer than this are listed */
#define GRACE_S 60.0   /* for outstanding replies at the end */
#define MAX_ERRORS 100
#define MAX_GAPS 10000
#define MAX_PIDS 64
#define LINE 512
#define WAIT_MAX 10000 /* milliseconds; the median is of whole ones up to there */

struct connection {
    char cid[64];
    int fd; /* -1: dead */
    unsigned long long seq, acked, last_global;
    double sent_at;
    double due; /* its turns are one interval apart from the beginning on, whatever it waited: clients that a pause has stopped together stay spread */
    char buffer[LINE];
    size_t have;
};

struct event { /* a gap, or an error */
    char *cid, *text;
    unsigned long long seq;
    double at, ms;
};

struct load {
    const char *host, *prefix, *report, *status;
    int n, port;
    double interval, duration;
    struct connection *c;
    struct pollfd *p;
    unsigned long long requests, replies, duplicates, resets, max_global;
    double longest_ms, started;
    unsigned waits[WAIT_MAX + 1]; /* replies by how long they took */
    struct event gaps[MAX_GAPS], errors[MAX_ERRORS];
    size_t n_gaps, n_errors, n_pids;
    bool more_errors;
    long pids[MAX_PIDS];
};

static volatile sig_atomic_t stopping;

static void on_signal(int sig)
{
    (void)sig;
    stopping = 1;
}

static double clock_s(clockid_t id)
{
    struct timespec t;
    clock_gettime(id, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static double now_s(void) { return clock_s(CLOCK_MONOTONIC); }

__attribute__((format(printf, 3, 4))) static void error(struct load *l, const struct connection *c, const char *fmt, ...)
{
    va_list ap;
    if (l->n_errors == MAX_ERRORS) {
        l->more_errors = true;
        return;
    }
    struct event *e = &l->errors[l->n_errors++];
    e->cid = strdup(c->cid);
    e->at = clock_s(CLOCK_REALTIME);
    va_start(ap, fmt);
    if (vasprintf(&e->text, fmt, ap) < 0)
        abort();
    va_end(ap);
}

static void give_up(struct load *l, struct connection *c, const char *what, int error_number)
{
    l->resets++;
    error(l, c, "%s%s%s", what, error_number ? ": " : "", error_number ? strerror(error_number) : "");
    close(c->fd);
    c->fd = -1;
}

static bool waiting(const struct connection *c) { return c->fd >= 0 && c->seq > c->acked; }

static void send_next(struct load *l, struct connection *c, double now)
{
    char line[128];
    int len = snprintf(line, sizeof(line), "%s %llu\n", c->cid, ++c->seq);
    c->sent_at = now;
    l->requests++;
    ssize_t n = send(c->fd, line, (size_t)len, MSG_NOSIGNAL);
    if (n != len)
        give_up(l, c, "send", n < 0 ? errno : EAGAIN);
}

static void note_pid(struct load *l, long pid)
{
    for (size_t i = 0; i < l->n_pids; i++)
        if (l->pids[i] == pid)
            return;
    if (l->n_pids < MAX_PIDS)
        l->pids[l->n_pids++] = pid;
}

static void note_wait(struct load *l, const struct connection *c, double waited_ms)
{
    if (waited_ms > l->longest_ms)
        l->longest_ms = waited_ms;
    l->waits[waited_ms < WAIT_MAX ? (int)waited_ms : WAIT_MAX]++;
    if (waited_ms > GAP_MS && l->n_gaps < MAX_GAPS)
        l->gaps[l->n_gaps++] = (struct event){strdup(c->cid), NULL, c->acked, clock_s(CLOCK_REALTIME) - waited_ms / 1000, waited_ms};
}

static void reply(struct load *l, struct connection *c, const char *line)
{
    char cid[64];
    unsigned long long seq, count, total;
    long pid;
    int end = 0;
    double now = now_s();
    if (sscanf(line, "%63s %llu %llu %llu %ld%n", cid, &seq, &count, &total, &pid, &end) != 5 || line[end]) {
        error(l, c, "not understood: %.200s", line);
        return;
    }
    if (strcmp(cid, c->cid) != 0 || count != seq || seq > c->seq) {
        error(l, c, "reply to %llu is: %.200s", c->seq, line);
        return;
    }
    if (seq <= c->acked) {
        l->duplicates++;
        return;
    }
    if (seq != c->acked + 1)
        error(l, c, "reply %llu after %llu", seq, c->acked);
    if (total <= c->last_global)
        error(l, c, "global %llu after %llu", total, c->last_global);
    note_pid(l, pid);
    c->acked = seq;
    c->last_global = total;
    l->max_global = total > l->max_global ? total : l->max_global;
    l->replies++;
    note_wait(l, c, (now - c->sent_at) * 1000);
    while (l->interval > 0 && c->due <= now)
        c->due += l->interval;
}

static void receive(struct load *l, struct connection *c)
{
    ssize_t n = recv(c->fd, c->buffer + c->have, sizeof(c->buffer) - 1 - c->have, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0) {
        give_up(l, c, n < 0 ? "receive" : "end of stream", n < 0 ? errno : 0);
        return;
    }
    c->have += (size_t)n;
    c->buffer[c->have] = '\0';
    char *line = c->buffer, *end;
    while ((end = strchr(line, '\n'))) {
        *end = '\0';
        reply(l, c, line);
        line = end + 1;
    }
    c->have -= (size_t)(line - c->buffer);
    memmove(c->buffer, line, c->have);
    if (c->have == sizeof(c->buffer) - 1)
        give_up(l, c, "a reply without end", 0);
}

/* ---- report ---- */

static void put_string(FILE *f, const char *s)
{
    fputc('"', f);
    for (; *s; s++) {
        if ((unsigned char)*s < ' ' || (unsigned char)*s > '~')
            fprintf(f, "\\u%04x", (unsigned char)*s);
        else
            fprintf(f, *s == '"' || *s == '\\' ? "\\%c" : "%c", *s);
    }
    fputc('"', f);
}

static void put_time(FILE *f, double at)
{
    char text[64];
    struct tm tm;
    time_t s = (time_t)at;
    strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%S", gmtime_r(&s, &tm));
    fprintf(f, "\"%s.%06d+00:00\"", text, (int)((at - (double)s) * 1e6));
}

static unsigned long long outstanding(const struct load *l)
{
    unsigned long long sum = 0;
    for (int i = 0; i < l->n; i++)
        sum += l->c[i].seq - l->c[i].acked;
    return sum;
}

static void put_events(FILE *f, const struct load *l)
{
    fprintf(f, " \"errors\": [");
    for (size_t i = 0; i < l->n_errors; i++) {
        fprintf(f, "%s\n  {\"connection\": ", i ? "," : "");
        put_string(f, l->errors[i].cid);
        fprintf(f, ", \"at\": ");
        put_time(f, l->errors[i].at);
        fprintf(f, ", \"text\": ");
        put_string(f, l->errors[i].text);
        fputc('}', f);
    }
    if (l->more_errors)
        fprintf(f, ",\n  {\"text\": \"more errors\"}");
    fprintf(f, "],\n \"gaps\": [");
    for (size_t i = 0; i < l->n_gaps; i++) {
        fprintf(f, "%s\n  {\"connection\": ", i ? "," : "");
        put_string(f, l->gaps[i].cid);
        fprintf(f, ", \"seq\": %llu, \"start\": ", l->gaps[i].seq);
        put_time(f, l->gaps[i].at);
        fprintf(f, ", \"ms\": %.1f}", l->gaps[i].ms);
    }
    fprintf(f, "],\n");
}

/* From a request to its reply, as a client sees it. */
static int median_ms(const struct load *l)
{
    unsigned long long seen = 0;
    int ms = 0;
    while (ms < WAIT_MAX && (seen += l->waits[ms]) * 2 < l->replies)
        ms++;
    return ms;
}

/* Appears whole. */
static int write_report(const struct load *l, const char *path, bool final)
{
    char part[4096];
    snprintf(part, sizeof(part), "%s.part", path);
    FILE *f = fopen(part, "w");
    if (!f)
        return -1;
    fprintf(f, "{\"connections\": %d, \"requests\": %llu, \"replies\": %llu, \"losses\": %llu, \"outstanding\": %llu,\n", l->n,
            l->requests, l->replies, final ? outstanding(l) : 0, outstanding(l));
    fprintf(f, " \"duplicates\": %llu, \"resets\": %llu, \"longest_gap_ms\": %.1f, \"median_ms\": %d, \"max_global\": %llu,\n", l->duplicates, l->resets,
            l->longest_ms, median_ms(l), l->max_global);
    put_events(f, l);
    fprintf(f, " \"pids\": [");
    for (size_t i = 0; i < l->n_pids; i++)
        fprintf(f, "%s%ld", i ? ", " : "", l->pids[i]);
    fprintf(f, "],\n \"per_connection\": {");
    for (int i = 0; i < l->n; i++) {
        fprintf(f, "%s", i ? ", " : "");
        put_string(f, l->c[i].cid);
        fprintf(f, ": %llu", l->c[i].acked);
    }
    fprintf(f, "},\n \"started\": ");
    put_time(f, l->started);
    fprintf(f, ", \"ended\": ");
    put_time(f, clock_s(CLOCK_REALTIME));
    fprintf(f, ", \"final\": %s}\n", final ? "true" : "false");
    bool bad = ferror(f);
    return fclose(f) != 0 || bad ? -1 : rename(part, path);
}

/* ---- the loop ---- */

/* Sends what is due; the time at which the next one is. */
static double send_due(struct load *l, double now)
{
    double wake = now + 1;
    for (int i = 0; i < l->n; i++) {
        struct connection *c = &l->c[i];
        if (c->fd < 0 || waiting(c))
            continue;
        if (c->due <= now)
            send_next(l, c, now);
        else if (c->due < wake)
            wake = c->due;
    }
    return wake;
}

static void run(struct load *l)
{
    double begin = now_s(), next_status = begin, deadline = 0;
    for (;;) {
        double now = now_s(), wake = now + 1;
        int alive = 0, open = 0;
        if (l->duration > 0 && now >= begin + l->duration)
            stopping = 1;
        if (!stopping)
            wake = send_due(l, now);
        for (int i = 0; i < l->n; i++) {
            alive += l->c[i].fd >= 0;
            open += waiting(&l->c[i]);
            l->p[i] = (struct pollfd){l->c[i].fd, POLLIN, 0};
        }
        if (stopping && deadline == 0)
            deadline = now + GRACE_S;
        if (alive == 0 || (stopping && (open == 0 || now >= deadline)))
            return;
        if (l->status && now >= next_status) {
            write_report(l, l->status, false);
            next_status = now + 1;
        }
        /* A signal that comes just before the wait is seen at most this much later. */
        double wait = wake - now < 0.2 ? wake - now : 0.2;
        if (poll(l->p, (nfds_t)l->n, wait > 0 ? (int)(wait * 1000) + 1 : 0) <= 0)
            continue;
        for (int i = 0; i < l->n; i++)
            if (l->c[i].fd >= 0 && l->p[i].revents)
                receive(l, &l->c[i]);
    }
}

/* Numeric addresses only: the program is static, so that it runs in any dom0. */
static socklen_t address(const struct load *l, struct sockaddr_storage *a)
{
    struct sockaddr_in *v4 = (struct sockaddr_in *)a;
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)a;
    memset(a, 0, sizeof(*a));
    if (inet_pton(AF_INET, l->host, &v4->sin_addr) == 1) {
        v4->sin_family = AF_INET;
        v4->sin_port = htons((uint16_t)l->port);
        return sizeof(*v4);
    }
    if (inet_pton(AF_INET6, l->host, &v6->sin6_addr) == 1) {
        v6->sin6_family = AF_INET6;
        v6->sin6_port = htons((uint16_t)l->port);
        return sizeof(*v6);
    }
    fprintf(stderr, "loadclient: not an IP address: %s\n", l->host);
    return 0;
}

static int connect_one(const struct load *l)
{
    struct sockaddr_storage a;
    socklen_t len = address(l, &a);
    int one = 1;
    int fd = len ? socket(a.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0) : -1;
    if (len == 0)
        return -1;
    if (fd < 0 || connect(fd, (struct sockaddr *)&a, len) < 0) {
        fprintf(stderr, "loadclient: connect to %s: %s\n", l->host, strerror(errno));
        return -1;
    }
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    fcntl(fd, F_SETFL, O_NONBLOCK);
    return fd;
}

static int connect_all(struct load *l)
{
    l->c = calloc((size_t)l->n, sizeof(*l->c));
    l->p = calloc((size_t)l->n, sizeof(*l->p));
    for (int i = 0; i < l->n; i++) {
        struct connection *c = &l->c[i];
        if (l->prefix)
            snprintf(c->cid, sizeof(c->cid), "%.40s%d", l->prefix, i);
        else
            snprintf(c->cid, sizeof(c->cid), "%d-%d", (int)getpid(), i);
        if ((c->fd = connect_one(l)) < 0)
            return -1;
        c->due = now_s() + l->interval * i / l->n;
    }
    return 0;
}

static void usage(int status)
{
    fprintf(status ? stderr : stdout,
            "usage: loadclient --host ADDRESS --report FILE [--port 7000] [--conns 20] [--interval SECONDS] [--duration SECONDS]\n"
            "                  [--prefix TEXT] [--status FILE]\n"
            "  --interval   from one request of a connection to the next (0.25)\n"
            "  --duration   without it until SIGTERM or SIGINT\n"
            "  --status     the state so far, renewed every second\n");
    exit(status);
}

static void options(struct load *l, int argc, char *argv[])
{
    static const struct option names[] = {{"host", 1, NULL, 'h'}, {"port", 1, NULL, 'p'}, {"conns", 1, NULL, 'c'}, {"interval", 1, NULL, 'i'},
                                          {"duration", 1, NULL, 'd'}, {"prefix", 1, NULL, 'x'}, {"report", 1, NULL, 'r'}, {"status", 1, NULL, 's'},
                                          {"help", 0, NULL, '?'}, {NULL, 0, NULL, 0}};
    for (int o; (o = getopt_long(argc, argv, "", names, NULL)) != -1;)
        switch (o) {
        case 'h': l->host = optarg; break;
        case 'p': l->port = atoi(optarg); break;
        case 'c': l->n = atoi(optarg); break;
        case 'i': l->interval = atof(optarg); break;
        case 'd': l->duration = atof(optarg); break;
        case 'x': l->prefix = optarg; break;
        case 'r': l->report = optarg; break;
        case 's': l->status = optarg; break;
        default: usage(optopt ? 2 : 0);
        }
    if (!l->host || !l->report || l->n < 1 || l->n > 65536 || optind != argc)
        usage(2);
}

int main(int argc, char *argv[])
{
    static struct load l = {.port = 7000, .n = 20, .interval = 0.25};
    options(&l, argc, argv);
    l.started = clock_s(CLOCK_REALTIME);
    signal(SIGTERM, on_signal);
    signal(SIGINT, on_signal);
    if (connect_all(&l) < 0)
        return 2;
    run(&l);
    if (write_report(&l, l.report, true) < 0 || (l.status && write_report(&l, l.status, true) < 0)) {
        perror("loadclient: the report");
        return 2;
    }
    return outstanding(&l) || l.duplicates || l.resets || l.n_errors || !l.replies ? 1 : 0;
}
