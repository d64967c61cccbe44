/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The files of unix sockets: what they are called at a dump, and again behind a restore; what a restore leaves is taken away. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "base/fsio.h"
#include "base/strbuf.h"
#include "procmig/residue.h"
#include "procmig/sockfiles.h"
#include "own_dir.h"

static char *in(const char *name)
{
    return molt_xasprintf("%s/%s", dir, name);
}

static int socket_at(int type, const char *name)
{
    CLEANUP_FREE char *path = in(name);
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);

    assert_true(fd >= 0);
    memcpy(a.sun_path, path, strlen(path));
    assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof(a)), 0);
    if (type == SOCK_STREAM)
        assert_int_equal(listen(fd, 8), 0);
    return fd;
}

static int connect_to(const char *name)
{
    CLEANUP_FREE char *path = in(name);
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    CLEANUP_CLOSE int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    memcpy(a.sun_path, path, strlen(path));
    return connect(fd, (struct sockaddr *)&a, sizeof(a)) == 0 ? MOLT_STEAL_FD(fd) : -1;
}

static void move(const char *from, const char *to)
{
    CLEANUP_FREE char *a = in(from), *b = in(to);

    assert_int_equal(rename(a, b), 0);
}

static bool there(const char *name)
{
    CLEANUP_FREE char *path = in(name);

    return molt_exists(path);
}

/* As a dump would, of these descriptors of this process. */
static struct molt_json *noted(const int *fd, size_t n)
{
    struct molt_json *list = molt_json_array();
    struct molt__unix_table t = {NULL, 0, 0};

    assert_int_equal(molt__unix_table_read(&t, NULL), 0);
    for (size_t i = 0; i < n; i++) {
        struct stat st;

        assert_int_equal(fstat(fd[i], &st), 0);
        const struct molt__unix_sk *sk = molt__unix_find(&t, (uint32_t)st.st_ino);

        assert_non_null(sk);
        assert_int_equal(molt__sockfiles_note(list, getpid(), fd[i], sk, NULL), 0);
    }
    molt__unix_table_free(&t);
    return list;
}

/* The file's name now of what was bound to NAME; NULL: it is not in the list. */
static const char *now_of(const struct molt_json *list, const char *name)
{
    CLEANUP_FREE char *path = in(name);

    for (size_t i = 0; i < molt_json_size(list); i++)
        if (molt_streq(molt_json_get_string(molt_json_at(list, i), "name"), path))
            return strrchr(molt_json_get_string(molt_json_at(list, i), "path"), '/') + 1;
    return NULL;
}

static void names_are_found(void **state)
{
    CLEANUP_FREE char *real = in("real"), *link = in("link"), *gone = in("gone");
    int fd[6], pair[2];

    (void)state;
    assert_int_equal(mkdir(real, 0700), 0);
    assert_int_equal(symlink("real", link), 0);
    fd[0] = socket_at(SOCK_STREAM, "plain");
    fd[1] = socket_at(SOCK_STREAM, "java.tmp");
    move("java.tmp", "java");
    fd[2] = socket_at(SOCK_DGRAM, "link/log");
    fd[3] = socket_at(SOCK_STREAM, "gone");
    assert_int_equal(unlink(gone), 0);
    assert_true((fd[4] = connect_to("java")) >= 0);
    fd[5] = accept(fd[1], NULL, NULL); /* has its listener's name */
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);

    CLEANUP_JSON struct molt_json *list = noted(fd, 6), *none = noted(pair, 2), *accepted = noted(fd + 5, 1), *twice = noted((const int[]){fd[1], fd[1]}, 2);

    assert_int_equal(molt_json_size(list), 3);
    assert_string_equal(now_of(list, "plain"), "plain");
    assert_string_equal(now_of(list, "java.tmp"), "java");
    assert_string_equal(now_of(list, "link/log"), "log");
    assert_int_equal(molt_json_size(none), 0);
    assert_int_equal(molt_json_size(accepted), 0);
    assert_int_equal(molt_json_size(twice), 1);
    for (size_t i = 0; i < 6; i++)
        close(fd[i]);
    close(pair[0]);
    close(pair[1]);
}

/* One that took the first name of another is part of it. */
static void names_come_back(void **state)
{
    int fd[2] = {socket_at(SOCK_STREAM, "a"), -1}, c;

    (void)state;
    move("a", "b");
    CLEANUP_JSON struct molt_json *list = noted(fd, 1);

    close(fd[0]);
    fd[0] = socket_at(SOCK_STREAM, "x"); /* "b" is a file without a listener, as the merge brings it */
    move("x", "a");
    assert_int_equal(connect_to("b"), -1);
    assert_int_equal(molt__sockfiles_rename(list, NULL), 0);
    assert_false(there("a"));
    assert_true((c = connect_to("b")) >= 0);
    close(c);
    close(fd[0]);

    /* each has the other's first name */
    CLEANUP_FREE char *p = in("p"), *q = in("q"), *swap = molt_xasprintf("[{\"name\": \"%s\", \"path\": \"%s\"}, {\"name\": \"%s\", \"path\": \"%s\"}]", p, q, q, p);
    CLEANUP_JSON struct molt_json *both = NULL;
    struct stat was, is;

    assert_int_equal(molt_json_parse(swap, strlen(swap), &both, NULL), 0);
    fd[0] = socket_at(SOCK_STREAM, "p");
    fd[1] = socket_at(SOCK_STREAM, "q");
    assert_int_equal(lstat(p, &was), 0);
    assert_int_equal(molt__sockfiles_rename(both, NULL), 0);
    assert_int_equal(lstat(q, &is), 0);
    assert_int_equal(is.st_ino, was.st_ino);
    assert_int_equal(molt__sockfiles_untaken(list, NULL), 0);
    CLEANUP_ERROR struct molt_error *e = NULL;

    assert_int_equal(molt__sockfiles_untaken(both, &e), MOLT_E_CANNOT_MOVE);
    assert_non_null(strstr(molt_error_text(e), p));
    close(fd[0]);
    close(fd[1]);
    assert_int_equal(molt__sockfiles_untaken(both, NULL), 0);
}

static void what_peers_say_is_checked(void **state)
{
    static const char *const bad[] = {"[{\"name\": \"/tmp/../etc/x\", \"path\": \"/tmp/y\"}]", "[{\"name\": \"/tmp/x\"}]", "[{\"name\": \"x\", \"path\": \"y\"}]", "[7]", NULL};
    CLEANUP_FREE char *file = in("file"), *to = in("to"), *text = molt_xasprintf("[{\"name\": \"%s\", \"path\": \"%s\"}]", file, to);
    CLEANUP_JSON struct molt_json *no_socket = NULL;

    (void)state;
    for (size_t i = 0; bad[i]; i++) {
        CLEANUP_JSON struct molt_json *v = NULL;

        assert_int_equal(molt_json_parse(bad[i], strlen(bad[i]), &v, NULL), 0);
        assert_int_equal(molt__sockfiles_rename(v, NULL), MOLT_E_PROTOCOL);
        assert_int_equal(molt__sockfiles_untaken(v, NULL), MOLT_E_PROTOCOL);
    }
    assert_int_equal(molt_write_file(file, "", 0, 0600, NULL), 0);
    assert_int_equal(molt_json_parse(text, strlen(text), &no_socket, NULL), 0);
    assert_int_equal(molt__sockfiles_rename(no_socket, NULL), MOLT_E_CANNOT_MOVE);
    assert_true(there("file"));
}

static void residue(void **state)
{
    CLEANUP_FREE char *list = in("list"), *old = in("old"), *text = NULL, *sub = in("sub"), *deep = in("sub/file"), *sock = in("sock");
    CLEANUP_JSON struct molt_json *meta = NULL;
    struct molt__residue rs = {NULL, 0, 0};

    (void)state;
    assert_int_equal(molt_write_file(old, "", 0, 0600, NULL), 0);
    text = molt_xasprintf("{\"carry\": [{\"path\": \"%s\", \"dirs\": [{\"path\": \"%s\"}]}, {\"path\": \"%s\"}, {\"path\": \"/etc/passwd-\"}], \"sockfiles\": [{\"name\": \"%s\", \"path\": \"%s\"}]}",
                          deep, sub, old, sock, old);
    assert_int_equal(molt_json_parse(text, strlen(text), &meta, NULL), 0);
    molt__residue_note(&rs, meta);
    assert_int_equal(rs.n, 3);
    assert_int_equal(molt__residue_save(&rs, list, NULL), 0);
    molt__residue_free(&rs);
    assert_int_equal(mkdir(sub, 0700), 0);
    assert_int_equal(molt_write_file(deep, "", 0, 0600, NULL), 0);
    close(socket_at(SOCK_STREAM, "sock"));
    assert_int_equal(molt__residue_load(&rs, list, NULL), 0);
    molt__residue_clear(&rs);
    assert_true(!there("sub") && !there("sock") && there("old"));
    assert_int_equal(molt__residue_load(&rs, sock, NULL), 0);
    assert_int_equal(rs.n, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(names_are_found, in_a_directory, remove_directory),
        cmocka_unit_test_setup_teardown(names_come_back, in_a_directory, remove_directory),
        cmocka_unit_test_setup_teardown(what_peers_say_is_checked, in_a_directory, remove_directory),
        cmocka_unit_test_setup_teardown(residue, in_a_directory, remove_directory),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
