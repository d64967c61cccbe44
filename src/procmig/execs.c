/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "procmig/execs.h"

#include <dirent.h>
#include <elf.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fsio.h"
#include "base/strbuf.h"
#include "base/subprocess.h"

#define LIST_MAX  65536
#define HEAD_MAX  4096 /* bytes of a program that are looked at */
#define DEPTH_MAX 3    /* an interpreter that is a script */
#define LOADER_MS 30000

struct execs {
    struct molt_pins *p;
    pid_t pid; /* whose mounts are looked through */
    size_t n;
};

char *molt__exec_prefix(const char *exe)
{
    CLEANUP_FREE char *path = molt_xstrdup(exe);
    char *slash = strrchr(path, '/');

    for (int i = 0; i < 2 && slash; i++) {
        *slash = '\0';
        if (i == 1 || !(slash = strrchr(path, '/')))
            break;
        if (strcmp(slash, "/bin") && strcmp(slash, "/sbin"))
            return NULL;
    }
    return slash && *path && strcmp(path, "/usr") && strcmp(path, "/usr/local") ? MOLT_STEAL_PTR(path) : NULL;
}

char *molt__list_next(const char **at)
{
    while (**at) {
        const char *line = *at, *end = strchrnul(line, '\n'), *arrow = strstr(line, " => /"), *path = NULL;

        *at = *end ? end + 1 : end;
        if (arrow && arrow < end)
            path = arrow + 4;
        else if (line[0] == '\t' && line[1] == '/')
            path = line + 1; /* the loader itself */
        if (path)
            return molt_xstrndup(path, strcspn(path, " \n"));
    }
    return NULL;
}

char *molt__script_interpreter(const char *text, size_t len)
{
    const char *p = text + 2, *end;

    if (len < 4 || text[0] != '#' || text[1] != '!')
        return NULL;
    end = memchr(text, '\n', len);
    if (!end)
        return NULL;
    p += strspn(p, " \t");
    return p < end && *p == '/' ? molt_xstrndup(p, strcspn(p, " \t\r\n")) : NULL;
}

static bool wants_loader(const unsigned char *head, size_t len, char *loader)
{
    Elf64_Ehdr e;

    if (len < sizeof(e) || memcmp(head, ELFMAG, SELFMAG) || head[EI_CLASS] != ELFCLASS64)
        return false;
    memcpy(&e, head, sizeof(e));
    for (unsigned i = 0; i < e.e_phnum; i++) {
        Elf64_Phdr ph;

        if (e.e_phoff > len || (len - e.e_phoff) / sizeof(ph) <= i)
            break;
        memcpy(&ph, head + e.e_phoff + i * sizeof(ph), sizeof(ph));
        if (ph.p_type != PT_INTERP || ph.p_filesz < 2 || ph.p_filesz > PATH_MAX || ph.p_offset > len || ph.p_filesz > len - ph.p_offset)
            continue;
        memcpy(loader, head + ph.p_offset, ph.p_filesz);
        return loader[0] == '/' && loader[ph.p_filesz - 1] == '\0';
    }
    return false;
}

/* The loader of the workload's own view, asked in it. One that cannot tell (a program of another architecture) leaves the program without libraries. */
static int add_libraries(struct execs *x, const char *loader, const char *program, struct molt_error **err)
{
    char pid[16];
    char *argv[] = {"nsenter", "-t", pid, "-m", "--", (char *)loader, "--list", (char *)program, NULL};
    const struct molt_run_opts o = {.timeout_ms = LOADER_MS};
    CLEANUP_FREE char *out = NULL;
    int status = 0, r;

    snprintf(pid, sizeof(pid), "%d", (int)x->pid);
    r = molt_run(argv, &o, &status, &out, err);
    if (r < 0 || status != 0)
        return r;
    const char *at = out;

    for (char *path; (path = molt__list_next(&at)); free(path))
        (void)molt__pins_add(x->p, x->pid, path, MOLT_PIN_EXEC);
    return 0;
}

static int add(struct execs *x, const char *path, int depth, struct molt_error **err)
{
    CLEANUP_FREE char *full = molt_xasprintf("/proc/%d/root%s", (int)x->pid, path), *interpreter = NULL;
    CLEANUP_CLOSE int fd = open(full, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    unsigned char head[HEAD_MAX];
    char loader[PATH_MAX];
    struct stat st;
    ssize_t len;

    if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || !(st.st_mode & 0111) || depth > DEPTH_MAX)
        return 0;
    if (x->n++ >= MOLT_EXECS_MAX)
        return molt_error_set(err, MOLT_E_UNSUPPORTED, "more than %d programs that the workload may start are named", MOLT_EXECS_MAX);
    /* Many scripts have one interpreter: its libraries are asked for once. */
    if (!molt__pins_add(x->p, x->pid, path, MOLT_PIN_EXEC) || (len = pread(fd, head, sizeof(head), 0)) < 4)
        return 0;
    if (wants_loader(head, (size_t)len, loader))
        return add_libraries(x, loader, path, err);
    interpreter = molt__script_interpreter((const char *)head, (size_t)len);
    return interpreter ? add(x, interpreter, depth + 1, err) : 0;
}

/* The programs directly in a directory; shared libraries are often executable, too. */
static int add_all(struct execs *x, const char *dir, struct molt_error **err)
{
    CLEANUP_FREE char *full = molt_xasprintf("/proc/%d/root%s", (int)x->pid, dir);
    CLEANUP_CLOSEDIR DIR *d = opendir(full);
    struct dirent *e;
    int r = 0;

    while (d && r == 0 && (e = readdir(d))) {
        CLEANUP_FREE char *path = molt_xasprintf("%s/%s", dir, e->d_name);

        if (e->d_name[0] != '.' && !strstr(e->d_name, ".so"))
            r = add(x, path, 0, err);
    }
    return r;
}

static int add_named(struct execs *x, const char *path, struct molt_error **err)
{
    CLEANUP_FREE char *full = molt_xasprintf("/proc/%d/root%s", (int)x->pid, path);
    struct stat st;

    if (*path != '/' || strstr(path, "/../"))
        return molt_error_set(err, MOLT_E_USAGE, "not the absolute path of a program: %.200s", path);
    return stat(full, &st) == 0 && S_ISDIR(st.st_mode) ? add_all(x, path, err) : add(x, path, 0, err);
}

static int add_list(struct execs *x, const char *list, struct molt_error **err)
{
    CLEANUP_FREE char *text = NULL;
    char *save = NULL;
    int r = molt_exists(list) ? molt_read_file(list, LIST_MAX, &text, NULL, err) : 0;

    for (char *l = text ? strtok_r(text, "\n", &save) : NULL; l && r == 0; l = strtok_r(NULL, "\n", &save)) {
        l += strspn(l, " \t");
        size_t n = strcspn(l, "#");

        while (n > 0 && strchr(" \t\r", l[n - 1]))
            n--;
        l[n] = '\0';
        if (n > 0 && (r = add_named(x, l, err)) < 0)
            molt_error_prefix(err, "%s", list);
    }
    return r;
}

int molt_pins_add_execs(struct molt_pins *p, const struct molt_workload *w, const char *list, struct molt_error **err)
{
    struct execs x = {.p = p, .pid = w->main_pid};
    CLEANUP_FREE char *exe = molt_xasprintf("/proc/%d/exe", (int)w->main_pid), *prefix = NULL;
    static const char *const below[] = {"lib", "libexec"};
    char target[PATH_MAX];
    ssize_t len = readlink(exe, target, sizeof(target) - 1);
    int r = add(&x, "/bin/sh", 0, err);

    if (len > 0) {
        target[len] = '\0';
        prefix = molt__exec_prefix(target);
    }
    for (size_t i = 0; prefix && i < 2 && r == 0; i++) {
        CLEANUP_FREE char *dir = molt_xasprintf("%s/%s", prefix, below[i]);

        r = add_all(&x, dir, err);
    }
    return r < 0 ? r : add_list(&x, list, err);
}
