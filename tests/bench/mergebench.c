/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What tests/bench/merge measures with. Times in milliseconds, one "name value" a line.
 *   make DIR FILES             FILES files of 200 to 8000 bytes, 100 a directory
 *   change DIR FILES N SEED    writes to N of them
 *   passes ACTIVE BASE CLONE FILES TOTAL LAST record|scan
 *                              TOTAL files change, a pass, LAST of them change again, the final pass; the two sides are two
 *                              processes with one TCP connection
 *   serve PORT ACTIVE FILES TOTAL LAST record|scan
 *   merge ADDRESS PORT BASE CLONE record|scan
 *                              the same as two programs, on two machines; serve prints "ready" when it can be connected to
 *   record DIR -- COMMAND...   runs COMMAND while DIR's file system is recorded
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"
#include "merge/merge.h"

enum { PER_DIR = 100, FINAL_SEED = 7 };
static const char *const exclude[] = {"stash", "journal", "lost+found", NULL};

static int fail(const char *what, struct molt_error *e)
{
    fprintf(stderr, "mergebench: %s: %s\n", what, e ? molt_error_text(e) : strerror(errno));
    exit(1);
}

static void name_of(unsigned i, char out[64])
{
    snprintf(out, 64, "d%u/f%u", i / PER_DIR, i);
}

static void write_file(int dir, unsigned i, unsigned seed)
{
    char name[64], text[8192];
    size_t n = 200 + i * 7919u % 7800;
    name_of(i, name);
    for (size_t k = 0; k < n; k++)
        text[k] = (char)('a' + (k * 31 + i + seed) % 26);
    int fd = openat(dir, name, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    if (fd < 0 || write(fd, text, n) != (ssize_t)n)
        fail(name, NULL);
    close(fd);
}

static int open_dir(const char *path)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return fd < 0 ? fail(path, NULL) : fd;
}

static int make(const char *path, unsigned files)
{
    char name[64];
    int dir = open_dir(path);
    for (unsigned i = 0; i < files; i++) {
        snprintf(name, sizeof(name), "d%u", i / PER_DIR);
        if (i % PER_DIR == 0 && mkdirat(dir, name, 0755) < 0 && errno != EEXIST)
            fail(name, NULL);
        write_file(dir, i, 0);
    }
    return 0;
}

/* Spread over all of them. */
static int change(const char *path, unsigned files, unsigned n, unsigned seed)
{
    int dir = open_dir(path);
    for (unsigned i = 0; i < n; i++)
        write_file(dir, (unsigned)((uint64_t)i * files / n), seed);
    close(dir);
    return 0;
}

/* --- two processes and a connection --- */

struct side {
    FILE *in, *out;
};

static struct side side_of(int fd)
{
    int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    struct side s = {fdopen(fd, "r"), fdopen(dup(fd), "w")};
    setvbuf(s.in, NULL, _IOFBF, 1 << 18);
    setvbuf(s.out, NULL, _IOFBF, 1 << 18);
    return s;
}

static int put(void *ctx, const void *p, size_t n)
{
    return fwrite(p, 1, n, ctx) == n ? 0 : -1;
}

static int take(void *ctx, void *p, size_t n)
{
    return fread(p, 1, n, ctx) == n ? 0 : -1;
}

struct question {
    uint32_t q, len;
};

enum { Q_CHANGE = 0xffff }; /* none of molt_merge_question */

static int ask(void *ctx, enum molt_merge_question q, const void *req, size_t len, struct molt_source *ret, struct molt_error **err)
{
    struct side *s = ctx;
    const struct question h = {q, (uint32_t)len};
    if (put(s->out, &h, sizeof(h)) < 0 || put(s->out, req, len) < 0 || fflush(s->out))
        return molt_error_errno(err, "ask");
    *ret = (struct molt_source){take, s->in};
    return 0;
}

static struct molt_recorder *record(const char *root)
{
    char journal[256];
    struct molt_error *e = NULL;
    struct molt_recorder *r = NULL;
    snprintf(journal, sizeof(journal), "%s/journal", root);
    const struct molt_record_root roots[] = {{root, exclude}};
    const struct molt_recorder_opts o = {.roots = roots, .n_roots = 1, .journal_dir = journal};
    if (molt_recorder_start(&o, &r, &e) < 0)
        fail("record", e);
    return r;
}

/* The active's side of passes. */
struct active {
    const char *root;
    unsigned files, total, last;
    bool recorded;
};

static int64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

/* Beside the questions of the merge: the files change once more, answered by a byte. What was written before goes to the
 * disk first, for the final pass must not wait for that. */
static void change_again(struct side *s, const struct active *a)
{
    sync();
    change(a->root, a->files, a->last, FINAL_SEED);
    sync();
    usleep(50000);
    if (put(s->out, "", 1) < 0 || fflush(s->out))
        fail("answer", NULL);
}

static void answer(struct side *s, struct molt_merge_server *server, const struct active *a)
{
    struct question h;
    while (take(s->in, &h, sizeof(h)) == 0) {
        struct molt_error *e = NULL;
        char *req = malloc(h.len + 1);
        const struct molt_sink sink = {put, s->out};
        if (!req || take(s->in, req, h.len) < 0)
            fail("serve", NULL);
        if (h.q == Q_CHANGE)
            change_again(s, a);
        else if (molt_merge_serve(server, (enum molt_merge_question)h.q, req, h.len, &sink, &e) < 0 || fflush(s->out))
            fail("serve", e);
        free(req);
    }
}

/* On a socket that listens: changes, one connection, and all that it asks. It is told first when the changes began. */
static int active_side(int listener, const struct active *a, bool say_ready)
{
    struct molt_recorder *r = a->recorded ? record(a->root) : NULL;
    const int64_t begun = now_ns();
    change(a->root, a->files, a->total, 1);
    usleep(50000);
    if (say_ready) {
        puts("ready");
        fflush(stdout);
    }
    int fd = accept(listener, NULL, NULL);
    if (fd < 0)
        fail("accept", NULL);
    struct side s = side_of(fd);
    if (put(s.out, &begun, sizeof(begun)) < 0 || fflush(s.out))
        fail("greet", NULL);
    struct molt_merge_server *server = molt_merge_server_new(open_dir(a->root), exclude);
    molt_merge_server_record(server, r, 0, r ? NULL : "not asked for");
    answer(&s, server, a);
    molt_recorder_stop(r);
    return 0;
}

/* Bound to address (0: any) and port (0: one that is free); *ret_port: which. */
static int listen_at(uint32_t address, uint16_t port, uint16_t *ret_port)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(address), .sin_port = htons(port)};
    socklen_t n = sizeof(a);
    int on = 1, l = socket(AF_INET, SOCK_STREAM, 0);
    if (l < 0 || setsockopt(l, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) < 0 || bind(l, (void *)&a, n) < 0 || listen(l, 1) < 0 ||
        getsockname(l, (void *)&a, &n) < 0)
        fail("listen", NULL);
    *ret_port = ntohs(a.sin_port);
    return l;
}

/* Ends with a syncfs, as a pass does; own_ms is without it. */
static void pass(struct molt_merge *m, int rootfd, struct side *s, const char *name)
{
    const struct molt_merge_peer peer = {.call = ask, .ctx = s};
    struct molt_pass_stats st;
    struct molt_error *e = NULL;
    const int64_t start = now_ns();
    if (molt_merge_pass(m, &peer, MOLT_PASS_NO_SYNC, &st, &e) < 0)
        fail(name, e);
    const int64_t done = now_ns();
    if (syncfs(rootfd) < 0)
        fail("syncfs", NULL);
    printf("%s_ms %.1f\n%s_own_ms %.1f\n%s_scan_ms %lld\n%s_actions %zu\n%s_bytes %llu\n%s_recorded %d\n", name,
           (double)(now_ns() - start) / 1e6, name, (double)(done - start) / 1e6, name, (long long)st.scan_ms, name, st.actions, name,
           (unsigned long long)st.bytes, name, st.recorded);
}

/* What the clone's own recording tells. */
static void give_changes(struct molt_merge_opts *o, const char *clone)
{
    uint64_t position = 0;
    struct molt_recorder *r = record(clone);
    struct molt_dirty_set *d = molt_recorder_sync(r, &position);
    struct molt_look *v = calloc(d->n + 1, sizeof(*v));
    if (d->lost || !v)
        fail("the clone's recording", NULL);
    o->changed = v;
    o->n_changed = molt_dirty_looks(d, 0, v);
    molt_recorder_stop(r);
}

static int clone_side(const char *address, uint16_t port, const char *base, const char *clone, bool recorded)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port)};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    struct molt_error *e = NULL;
    struct molt_policy *policy = NULL;
    struct molt_merge *m = NULL;
    static const char rules[] = "data active /**\n";
    int64_t begun;
    char byte;
    if (fd < 0 || inet_pton(AF_INET, address, &to.sin_addr) != 1 || connect(fd, (void *)&to, sizeof(to)) < 0)
        fail("connect", NULL);
    struct side s = side_of(fd);
    if (take(s.in, &begun, sizeof(begun)) < 0)
        fail("connect", NULL);
    struct molt_merge_opts o = {.rootfd = open_dir(clone), .basefd = open_dir(base), .stash = "stash", .exclude = exclude, .snapshot_ns = begun};
    if (molt_policy_parse(rules, sizeof(rules) - 1, "bench", &policy, &e) < 0)
        fail("policy", e);
    o.policy = policy;
    int64_t start = molt_mono_ms();
    if (recorded)
        give_changes(&o, clone);
    if (molt_merge_new(&o, &m, &e) < 0)
        fail("begin", e);
    printf("begin_ms %lld\n", (long long)(molt_mono_ms() - start));
    pass(m, o.rootfd, &s, "first");
    struct molt_source answer;
    if (ask(&s, (enum molt_merge_question)Q_CHANGE, "", 0, &answer, &e) < 0 || take(s.in, &byte, 1) < 0)
        fail("change again", e);
    pass(m, o.rootfd, &s, "final");
    molt_merge_free(m);
    molt_policy_free(policy);
    fclose(s.in);
    fclose(s.out);
    return 0;
}

/* For comparison: a plain program writes the same files once more, on a file system in the same state. */
static void plain(const char *clone, unsigned files, unsigned last)
{
    sync();
    const int64_t start = now_ns();
    change(clone, files, last, FINAL_SEED + 1);
    printf("plain_ms %.1f\n", (double)(now_ns() - start) / 1e6);
}

static bool is_recorded(const char *word)
{
    return strcmp(word, "record") == 0;
}

static int passes(char **v)
{
    const struct active a = {v[0], (unsigned)atoi(v[3]), (unsigned)atoi(v[4]), (unsigned)atoi(v[5]), is_recorded(v[6])};
    uint16_t port;
    int l = listen_at(INADDR_LOOPBACK, 0, &port);
    pid_t pid = fork();
    if (pid == 0)
        _exit(active_side(l, &a, false));
    close(l);
    clone_side("127.0.0.1", port, v[1], v[2], a.recorded);
    plain(v[2], a.files, a.last);
    waitpid(pid, NULL, 0);
    return 0;
}

static int recorded_command(const char *dir, char **argv)
{
    int status;
    struct molt_recorder *r = record(dir);
    pid_t pid = fork();
    if (pid == 0) {
        execvp(argv[0], argv);
        _exit(127);
    }
    waitpid(pid, &status, 0);
    molt_recorder_stop(r);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}

int main(int argc, char **argv)
{
    signal(SIGPIPE, SIG_IGN);
    if (argc == 4 && strcmp(argv[1], "make") == 0)
        return make(argv[2], (unsigned)atoi(argv[3]));
    if (argc == 6 && strcmp(argv[1], "change") == 0)
        return change(argv[2], (unsigned)atoi(argv[3]), (unsigned)atoi(argv[4]), (unsigned)atoi(argv[5]));
    if (argc == 9 && strcmp(argv[1], "passes") == 0)
        return passes(argv + 2);
    if (argc == 8 && strcmp(argv[1], "serve") == 0) {
        const struct active a = {argv[3], (unsigned)atoi(argv[4]), (unsigned)atoi(argv[5]), (unsigned)atoi(argv[6]), is_recorded(argv[7])};
        uint16_t port;
        return active_side(listen_at(INADDR_ANY, (uint16_t)atoi(argv[2]), &port), &a, true);
    }
    if (argc == 7 && strcmp(argv[1], "merge") == 0)
        return clone_side(argv[2], (uint16_t)atoi(argv[3]), argv[4], argv[5], is_recorded(argv[6]));
    if (argc > 4 && strcmp(argv[1], "record") == 0 && strcmp(argv[3], "--") == 0)
        return recorded_command(argv[2], argv + 4);
    fputs("usage: mergebench make|change|passes|serve|merge|record ... (tests/bench/merge)\n", stderr);
    return 2;
}
