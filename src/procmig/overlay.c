/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "procmig/overlay.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/fsio.h"
#include "base/strbuf.h"
#include "procmig/procfs.h"

#define OVERLAY_SCHEMA   1
#define UNITS_MAX        1024
#define OVERLAY_MAX      100000
#define OVERLAY_FILE_MAX (64u << 20)

static void add(struct molt_overlay *o, char *path, char *pin, bool placeholder, char *made_dir, char *owner)
{
    MOLT_GROW(o->v, o->n, o->cap);
    o->v[o->n++] = (struct molt_overlay_entry){path, pin, placeholder, made_dir, owner};
}

struct molt_overlay *molt_overlay_new(const char *unit, const char *pin_dir, const struct molt_pins *p)
{
    struct molt_overlay *o = molt_xcalloc(1, sizeof(*o));

    o->unit = molt_xstrdup(unit);
    o->pin_dir = molt_xstrdup(pin_dir);
    o->made_s = molt_now_us() / 1000000;
    for (size_t i = 0; i < p->n; i++)
        if (p->v[i].need != MOLT_PIN_SAME)
            add(o, molt_xstrdup(p->v[i].path), molt_xasprintf("%s%s", pin_dir, p->v[i].path), false, NULL,
                p->v[i].owner ? molt_xstrdup(p->v[i].owner) : NULL);
    return o;
}

void molt_overlay_free(struct molt_overlay *o)
{
    if (!o)
        return;
    for (size_t i = 0; i < o->n; i++) {
        free(o->v[i].path);
        free(o->v[i].pin);
        free(o->v[i].made_dir);
        free(o->v[i].owner);
    }
    free(o->v);
    free(o->unit);
    free(o->pin_dir);
    free(o);
}

struct molt_json *molt_overlay_json(const struct molt_overlay *o)
{
    struct molt_json *v = molt_json_object(), *list = molt_json_array();
    CLEANUP_FREE char *dir = molt__path_encode(o->pin_dir);

    for (size_t i = 0; i < o->n; i++) {
        struct molt_json *e = molt_json_object();
        CLEANUP_FREE char *path = molt__path_encode(o->v[i].path), *pin = molt__path_encode(o->v[i].pin);
        CLEANUP_FREE char *made = o->v[i].made_dir ? molt__path_encode(o->v[i].made_dir) : NULL;

        molt_json_set_string(e, "path", path);
        molt_json_set_string(e, "pin", pin);
        molt_json_set_bool(e, "placeholder", o->v[i].placeholder);
        if (made)
            molt_json_set_string(e, "made_dir", made);
        if (o->v[i].owner)
            molt_json_set_string(e, "owner", o->v[i].owner);
        molt_json_append(list, e);
    }
    molt_json_set_int(v, "schema", OVERLAY_SCHEMA);
    molt_json_set_string(v, "unit", o->unit);
    molt_json_set_string(v, "pin_dir", dir);
    molt_json_set_int(v, "made", o->made_s);
    molt_json_set(v, "entries", list);
    return v;
}

/* made_dir must lead to path, and the pin must lie below pin_dir. */
static bool entry_is_sane(const struct molt_overlay *o, const char *path, const char *pin, const char *made)
{
    size_t len = strlen(o->pin_dir);

    if (!path || !pin || strncmp(pin, o->pin_dir, len) || pin[len] != '/')
        return false;
    return !made || (!strncmp(path, made, strlen(made)) && path[strlen(made)] == '/');
}

int molt_overlay_parse(const struct molt_json *v, struct molt_overlay **ret_o, struct molt_error **err)
{
    CLEANUP_OVERLAY struct molt_overlay *o = molt_xcalloc(1, sizeof(*o));
    const struct molt_json *list = molt_json_get(v, "entries");
    size_t n = molt_json_size(list);

    o->pin_dir = molt__path_decode(molt_json_get_string(v, "pin_dir"));
    o->made_s = molt_json_get_int(v, "made", 0);
    if (molt_json_get_int(v, "schema", 0) != OVERLAY_SCHEMA || !o->pin_dir || n > OVERLAY_MAX ||
        molt_json_type(list) != MOLT_JSON_ARRAY ||
        molt_unit_name(molt_json_get_string(v, "unit"), &o->unit, NULL) < 0)
        return molt_error_set(err, MOLT_E_PROTOCOL, "not an overlay of schema %d", OVERLAY_SCHEMA);
    for (size_t i = 0; i < n; i++) {
        const struct molt_json *e = molt_json_at(list, i);
        const char *made_text = molt_json_get_string(e, "made_dir"), *owner = molt_json_get_string(e, "owner");
        char *path = molt__path_decode(molt_json_get_string(e, "path"));
        char *pin = molt__path_decode(molt_json_get_string(e, "pin"));
        char *made = molt__path_decode(made_text);
        bool sane = entry_is_sane(o, path, pin, made) && (!made_text || made);

        add(o, path, pin, molt_json_get_bool(e, "placeholder", false), made, owner && molt_pin_owner_ok(owner) ? molt_xstrdup(owner) : NULL);
        if (!sane)
            return molt_error_set(err, MOLT_E_PROTOCOL, "malformed overlay entry %zu", i);
    }
    *ret_o = MOLT_STEAL_PTR(o);
    return 0;
}

static char *manifest_path(const char *unit)
{
    return molt_xasprintf("%s/%s.json", MOLT_OVERLAYS_DIR, unit);
}

int molt_overlay_save(const struct molt_overlay *o, struct molt_error **err)
{
    CLEANUP_JSON struct molt_json *v = molt_overlay_json(o);
    CLEANUP_FREE char *text = molt_json_print(v, true), *path = manifest_path(o->unit);
    int r = molt_mkdir_p(MOLT_OVERLAYS_DIR, 0755, err);

    return r < 0 ? r : molt_write_file_atomic(path, text, strlen(text), 0644, err);
}

int molt_overlay_load(const char *unit, struct molt_overlay **ret_o, struct molt_error **err)
{
    CLEANUP_FREE char *path = manifest_path(unit), *text = NULL;
    CLEANUP_JSON struct molt_json *v = NULL;
    size_t len;
    int r;

    if (!molt_exists(path))
        return molt_error_set(err, MOLT_E_STATE, "%s has no overlay", unit);
    r = molt_read_file(path, OVERLAY_FILE_MAX, &text, &len, err);
    if (r == 0)
        r = molt_json_parse(text, len, &v, err);
    if (r == 0)
        r = molt_overlay_parse(v, ret_o, err);
    return r < 0 ? molt_error_prefix(err, "%s", path) : 0;
}

int molt_overlay_units(char ***ret_v, size_t *ret_n, struct molt_error **err)
{
    CLEANUP_CLOSEDIR DIR *d = opendir(MOLT_OVERLAYS_DIR);
    const struct dirent *e;
    char **v = NULL;
    size_t n = 0, cap = 0;

    if (!d && errno != ENOENT)
        return molt_error_errno(err, "list " MOLT_OVERLAYS_DIR);
    while (d && (e = readdir(d)) && n < UNITS_MAX) {
        size_t len = strlen(e->d_name);
        CLEANUP_FREE char *name = len > 5 && !strcmp(e->d_name + len - 5, ".json") ? molt_xstrndup(e->d_name, len - 5) : NULL, *unit = NULL;

        if (!name || molt_unit_name(name, &unit, NULL) < 0 || strcmp(unit, name))
            continue;
        MOLT_GROW(v, n, cap);
        v[n++] = MOLT_STEAL_PTR(name);
    }
    *ret_v = v;
    *ret_n = n;
    return 0;
}

bool molt_overlay_in_use(const char *unit)
{
    CLEANUP_FREE char *out = NULL, *cgroup = NULL;
    CLEANUP_FREE pid_t *pid = NULL;
    char init[64] = "";
    size_t n = 0;
    bool used = false;

    if (readlink("/proc/1/ns/mnt", init, sizeof(init) - 1) < 0 || molt__systemctl_show(unit, "ControlGroup", &out, NULL) < 0)
        return true; /* rather keep it */
    cgroup = molt__show_get(out, "ControlGroup");
    if (!cgroup || strlen(cgroup) < 2 || molt__cgroup_pids(cgroup, &pid, &n, NULL) < 0)
        return false;
    for (size_t i = 0; i < n && !used; i++) {
        char path[64], own[64] = "";

        snprintf(path, sizeof(path), "/proc/%d/ns/mnt", (int)pid[i]);
        used = readlink(path, own, sizeof(own) - 1) > 0 && strcmp(own, init);
    }
    return used;
}

/* mkdir -p that tells the topmost directory that it will have to make; malloc'd or NULL. */
static char *first_missing(const char *dir)
{
    CLEANUP_FREE char *path = molt_xstrdup(dir);
    char *missing = NULL;

    while (strlen(path) > 1 && !molt_exists(path)) {
        free(missing);
        missing = molt_xstrdup(path);
        *strrchr(path, '/') = '\0';
    }
    return missing;
}

/* Two rounds, so that the manifest can be saved between: first what will be made is noted, then it is made.
 */
int molt_overlay_placeholders(struct molt_overlay *o, struct molt_error **err)
{
    int r;

    for (size_t i = 0; i < o->n; i++) {
        struct molt_overlay_entry *e = &o->v[i];
        CLEANUP_FREE char *dir = molt_xstrdup(e->path);

        *strrchr(dir, '/') = '\0';
        if (e->placeholder || molt_exists(e->path))
            continue;
        e->placeholder = true;
        e->made_dir = *dir ? first_missing(dir) : NULL;
    }
    r = molt_overlay_save(o, err);
    for (size_t i = 0; i < o->n && r == 0; i++) {
        struct molt_overlay_entry *e = &o->v[i];
        CLEANUP_FREE char *dir = molt_xstrdup(e->path);
        CLEANUP_CLOSE int fd = -1;

        if (!e->placeholder || molt_exists(e->path))
            continue;
        *strrchr(dir, '/') = '\0';
        r = *dir ? molt_mkdir_p(dir, 0755, err) : 0;
        if (r == 0 && (fd = open(e->path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0444)) < 0)
            r = molt_error_errno(err, "make a placeholder at %s", e->path);
    }
    return r;
}

int molt_overlay_enter(const struct molt_overlay *o, struct molt_error **err)
{
    if (unshare(CLONE_NEWNS) < 0)
        return molt_error_errno(err, "new mount namespace");
    if (mount(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL) < 0)
        return molt_error_errno(err, "make the mounts slaves");
    for (size_t i = 0; i < o->n; i++) {
        const struct molt_overlay_entry *e = &o->v[i];

        if (mount(e->pin, e->path, NULL, MS_BIND, NULL) < 0 ||
            mount(NULL, e->path, NULL, MS_REMOUNT | MS_BIND | MS_RDONLY, NULL) < 0)
            return molt_error_errno(err, "show %s at %s", e->pin, e->path);
    }
    return 0;
}

/* Removes the empty directories from path's own up to top. */
static void remove_made_dirs(const char *path, const char *top)
{
    CLEANUP_FREE char *dir = molt_xstrdup(path);

    while (strrchr(dir, '/') != dir) {
        *strrchr(dir, '/') = '\0';
        if (strlen(dir) < strlen(top) || rmdir(dir) < 0)
            return;
    }
}

int molt_overlay_remove(const char *unit, struct molt_error **err)
{
    CLEANUP_OVERLAY struct molt_overlay *o = NULL;
    CLEANUP_FREE char *manifest = manifest_path(unit);
    int r;

    if (!molt_exists(manifest))
        return 0;
    r = molt_overlay_load(unit, &o, err);
    if (r < 0)
        return r;
    for (size_t i = 0; i < o->n; i++) {
        const struct molt_overlay_entry *e = &o->v[i];
        struct stat st;

        if (!e->placeholder || lstat(e->path, &st) < 0 || !S_ISREG(st.st_mode) || st.st_size != 0)
            continue;
        if (unlink(e->path) < 0 && errno != ENOENT)
            return molt_error_errno(err, "remove the placeholder %s", e->path);
    }
    for (size_t i = 0; i < o->n; i++)
        if (o->v[i].placeholder && o->v[i].made_dir)
            remove_made_dirs(o->v[i].path, o->v[i].made_dir);
    r = molt_remove_tree(o->pin_dir, err);
    CLEANUP_FREE char *above = molt_xstrdup(o->pin_dir);
    *strrchr(above, '/') = '\0';
    if (!strncmp(above, MOLT_PINS_DIR "/", sizeof(MOLT_PINS_DIR)))
        (void)rmdir(above); /* the operation's, when it has no other */
    if (r == 0 && unlink(manifest) < 0 && errno != ENOENT)
        r = molt_error_errno(err, "remove %s", manifest);
    return r;
}
