/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Users and groups of a workload held against this system's own. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "procmig/owners.h"

/* The one reason that TEXT's owners give here, NULL: none. */
static const char *reason(const char *text, struct molt_reasons *r)
{
    CLEANUP_JSON struct molt_json *v = NULL;
    assert_int_equal(molt_json_parse(text, strlen(text), &v, NULL), 0);
    assert_int_equal(molt_owners_check(v, r, NULL), 0);
    assert_in_range(r->n, 0, 1);
    return r->n ? r->v[0].detail : NULL;
}

static void against_this_system(void **state)
{
    static const struct {
        const char *owners, *detail;
    } t[] = {
        {"[]", NULL},
        {"[{\"kind\":\"passwd\",\"id\":65534,\"name\":\"nobody\"},{\"kind\":\"group\",\"id\":65534,\"name\":\"nogroup\"}]", NULL},
        {"[{\"kind\":\"passwd\",\"id\":777777777}]", NULL},
        {"[{\"kind\":\"passwd\",\"id\":65534}]", "it runs as user 65534, which is nobody here"},
        {"[{\"kind\":\"passwd\",\"id\":7,\"name\":\"nobody\"}]", "it runs as user nobody (7), who is 65534 here"},
        {"[{\"kind\":\"group\",\"id\":7,\"name\":\"nogroup\"}]", "it runs as group nogroup (7), who is 65534 here"},
        {"[{\"kind\":\"passwd\",\"id\":7,\"name\":\"no-such-one\"}]", "it runs as user no-such-one (7), whom this system does not have"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(t) / sizeof(t[0]); i++) {
        CLEANUP_REASONS struct molt_reasons r = MOLT_REASONS_INIT;
        const char *detail = reason(t[i].owners, &r);
        if (t[i].detail)
            assert_string_equal(detail, t[i].detail);
        else
            assert_null(detail);
    }
    CLEANUP_REASONS struct molt_reasons r = MOLT_REASONS_INIT;
    assert_int_equal(molt_owners_check(NULL, &r, NULL), 0);
}

static void what_is_no_owner(void **state)
{
    static const char *const bad[] = {
        "[{}]", "[{\"kind\":\"shadow\",\"id\":7}]", "[{\"kind\":\"passwd\",\"id\":0}]", "[{\"kind\":\"passwd\",\"id\":4294967295}]",
        "[{\"kind\":\"passwd\",\"id\":7,\"name\":\"-s\"}]", "[{\"kind\":\"passwd\",\"id\":7,\"name\":\"7\"}]", "[{\"kind\":\"passwd\",\"id\":7,\"name\":\"a b\"}]",
        "[{\"kind\":\"passwd\",\"id\":7,\"name\":\"\"}]",
    };
    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        CLEANUP_JSON struct molt_json *v = NULL;
        CLEANUP_REASONS struct molt_reasons r = MOLT_REASONS_INIT;
        assert_int_equal(molt_json_parse(bad[i], strlen(bad[i]), &v, NULL), 0);
        assert_int_equal(molt_owners_check(v, &r, NULL), MOLT_E_PROTOCOL);
    }
}

/* A child as nobody, found with its name; what it says of itself holds on its own system. */
static void of_processes(void **state)
{
    int fd[2];
    char byte;
    (void)state;
    if (geteuid() != 0) {
        print_message("SKIP: needs root\n");
        skip();
    }
    assert_int_equal(pipe(fd), 0);
    pid_t child = fork();
    if (child == 0) {
        if (setgid(65534) < 0 || setuid(65534) < 0 || write(fd[1], "", 1) != 1)
            _exit(1);
        pause();
    }
    assert_int_equal(read(fd[0], &byte, 1), 1);
    struct molt_proc procs[] = {{.pid = getpid()}, {.pid = child}, {.pid = child}};
    struct molt_workload w = {.proc = procs, .procs = 3};
    CLEANUP_JSON struct molt_json *list = NULL;
    CLEANUP_REASONS struct molt_reasons r = MOLT_REASONS_INIT;
    assert_int_equal(molt_owners_list(&w, &list, NULL), 0);
    CLEANUP_FREE char *text = molt_json_print(list, false);
    assert_string_equal(text, "[{\"kind\":\"passwd\",\"id\":65534,\"name\":\"nobody\"},{\"kind\":\"group\",\"id\":65534,\"name\":\"nogroup\"}]");
    assert_int_equal(molt_owners_check(list, &r, NULL), 0);
    assert_int_equal(r.n, 0);
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    close(fd[0]);
    close(fd[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(against_this_system),
        cmocka_unit_test(what_is_no_owner),
        cmocka_unit_test(of_processes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
