/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "lvm.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/json.h"
#include "base/strbuf.h"
#include "base/subprocess.h"

#define TIMEOUT_MS  120000
#define DEVICE_MS   30000
#define BUSY_TRIES  40
#define BUSY_WAIT_MS 500

static int run(char *const argv[], char **ret_output, struct molt_error **err)
{
    const struct molt_run_opts o = {.timeout_ms = TIMEOUT_MS};
    return molt_run_ok(argv, &o, ret_output, err);
}

/* One volume's line of lvs; warnings may stand around the JSON text. */
static int report(const char *what, struct molt_json **ret, struct molt_error **err)
{
    char *argv[] = {(char *)"lvs", (char *)"--reportformat", (char *)"json", (char *)"--units", (char *)"b", (char *)"--nosuffix", (char *)"-o",
                    (char *)"vg_name,lv_name,lv_size,pool_lv,origin,segtype,vg_free,data_percent", (char *)what, NULL};
    CLEANUP_FREE char *out = NULL;
    CLEANUP_JSON struct molt_json *v = NULL;
    int r = run(argv, &out, err);
    if (r < 0)
        return r;
    char *begin = strstr(out, "\"report\""), *end = strrchr(out, '}');
    while (begin && begin > out && *begin != '{')
        begin--;
    r = begin && end ? molt_json_parse(begin, (size_t)(end + 1 - begin), &v, err) : MOLT_E_INTERNAL;
    const struct molt_json *lv = r == 0 ? molt_json_at(molt_json_get(molt_json_at(molt_json_get(v, "report"), 0), "lv"), 0) : NULL;
    if (!lv)
        return r < 0 && *err ? r : molt_error_set(err, MOLT_E_INTERNAL, "lvs says nothing of %s", what);
    *ret = molt_json_copy(lv);
    return 0;
}

static const char *field(const struct molt_json *lv, const char *key)
{
    const char *s = molt_json_get_string(lv, key);
    return s ? s : "";
}

/* What is left in a thin volume's pool. */
static int pool_free(struct molt_lv *lv, const char *pool, struct molt_error **err)
{
    CLEANUP_FREE char *what = molt_xasprintf("%s/%s", lv->vg, pool);
    CLEANUP_JSON struct molt_json *v = NULL;
    int r = report(what, &v, err);
    if (r < 0)
        return r;
    double used = strtod(field(v, "data_percent"), NULL);
    lv->free_bytes = (uint64_t)((double)strtoull(field(v, "lv_size"), NULL, 10) * (100 - used) / 100);
    return 0;
}

int molt_lv_of(const char *path, struct molt_lv *ret, struct molt_error **err)
{
    CLEANUP_JSON struct molt_json *v = NULL;
    struct molt_lv lv = {.thin = false};
    struct molt_error *e = NULL;
    if (report(path, &v, &e) < 0) {
        int r = molt_error_set(err, MOLT_E_UNSUPPORTED, "%s is no volume of LVM (%s); image files and LVM volumes are supported", path, molt_error_text(e));
        molt_error_clear(&e);
        return r;
    }
    const char *type = field(v, "segtype"), *pool = field(v, "pool_lv");
    if (strlen(field(v, "vg_name")) >= sizeof(lv.vg) || strlen(field(v, "lv_name")) >= sizeof(lv.name))
        return molt_error_set(err, MOLT_E_UNSUPPORTED, "%s: its name is too long", path);
    snprintf(lv.vg, sizeof(lv.vg), "%s", field(v, "vg_name"));
    snprintf(lv.name, sizeof(lv.name), "%s", field(v, "lv_name"));
    lv.thin = !strcmp(type, "thin");
    lv.size = strtoull(field(v, "lv_size"), NULL, 10);
    lv.free_bytes = strtoull(field(v, "vg_free"), NULL, 10);
    if (!lv.thin && *field(v, "origin"))
        return molt_error_set(err, MOLT_E_UNSUPPORTED, "%s is itself a snapshot, of %s, and LVM takes none of it; copy it into a volume of its own, or use a thin pool", path, field(v, "origin"));
    if (strstr(type, "pool") || lv.size == 0)
        return molt_error_set(err, MOLT_E_UNSUPPORTED, "%s is a volume of type %s, of which LVM takes no snapshot", path, type);
    int r = lv.thin ? pool_free(&lv, pool, err) : 0;
    if (r == 0)
        *ret = lv;
    return r;
}

char *molt_lv_path(const char *vg, const char *name)
{
    return molt_xasprintf("/dev/%s/%s", vg, name);
}

char *molt_lv_sibling(const char *path, const char *what)
{
    const char *name = strrchr(path, '/'), *last = name ? strrchr(name, '.') : NULL, *id = last;
    while (id && --id > name && *id != '.')
        ;
    if (!id || id <= name + 1 || strncmp(path, "/dev/", 5) != 0)
        return NULL;
    return what ? molt_xasprintf("%.*s.%s", (int)(last - path), path, what) : molt_xstrndup(path, (size_t)(id - path));
}

int molt_lv_snapshot(const char *vg, const char *origin, const char *name, uint64_t room, struct molt_error **err)
{
    CLEANUP_FREE char *from = molt_xasprintf("%s/%s", vg, origin), *size = molt_xasprintf("%llub", (unsigned long long)room);
    /* -kn: a thin snapshot would not be activated by itself (lvmthin(7)); --yes: no question about signatures. The guest stands still
     * meanwhile: no backup of the metadata (-An; the next command writes one), no waiting for udev, but for the device of a classic
     * one, whose store lvcreate clears. */
    char *thin[] = {(char *)"lvcreate", (char *)"--yes", (char *)"-An", (char *)"--noudevsync", (char *)"-s", (char *)"-kn", (char *)"-ay", (char *)"-prw", (char *)"-n", (char *)name, from, NULL};
    char *classic[] = {(char *)"lvcreate", (char *)"--yes", (char *)"-An", (char *)"-s", (char *)"-prw", (char *)"-L", size, (char *)"-n", (char *)name, from, NULL};
    return run(room ? classic : thin, NULL, err);
}

int molt_lv_wait(const char *vg, const char *name, struct molt_error **err)
{
    CLEANUP_FREE char *path = molt_lv_path(vg, name);
    int64_t end = molt_mono_ms() + DEVICE_MS;
    for (; access(path, R_OK | W_OK) < 0; molt_sleep_ms(10))
        if (molt_mono_ms() > end)
            return molt_error_set(err, MOLT_E_TIMEOUT, "udev did not make %s within %d s", path, DEVICE_MS / 1000);
    return 0;
}

int molt_lv_create(const char *vg, const char *name, uint64_t size, struct molt_error **err)
{
    CLEANUP_FREE char *bytes = molt_xasprintf("%llub", (unsigned long long)size);
    char *argv[] = {(char *)"lvcreate", (char *)"--yes", (char *)"-Wn", (char *)"-Zn", (char *)"-L", bytes, (char *)"-n", (char *)name, (char *)vg, NULL};
    return run(argv, NULL, err);
}

/* Names of the group's volumes of which a field has this value: by a selection, for that there is none is an answer and no failure.
 * Warnings stand in the same output: only what bears the field's name counts. */
static int select_names(const char *vg, const char *field, const char *value, char **ret, struct molt_error **err)
{
    static const char mark[] = "LVM2_LV_NAME='";
    CLEANUP_FREE char *select = molt_xasprintf("%s=\"%s\"", field, value), *out = NULL;
    CLEANUP_STRBUF struct molt_strbuf b = MOLT_STRBUF_INIT;
    char *argv[] = {(char *)"lvs", (char *)"--noheadings", (char *)"--nameprefixes", (char *)"-o", (char *)"lv_name", (char *)"-S", select, (char *)vg, NULL};
    int r = run(argv, &out, err);
    for (const char *at = r < 0 ? NULL : strstr(out, mark); at; at = strstr(at, mark)) {
        at += sizeof(mark) - 1;
        molt_strbuf_addf(&b, "%s%.*s", b.len ? " " : "", (int)strcspn(at, "'"), at);
    }
    if (r == 0)
        *ret = molt_strbuf_steal(&b);
    return r;
}

int molt_lv_exists(const char *vg, const char *name, struct molt_error **err)
{
    CLEANUP_FREE char *names = NULL;
    int r = select_names(vg, "lv_name", name, &names, err);
    return r < 0 ? r : strcmp(names, name) == 0;
}

int molt_lv_snapshots(const char *vg, const char *origin, char **ret, struct molt_error **err)
{
    return select_names(vg, "origin", origin, ret, err);
}

int molt_lv_remove(const char *vg, const char *name, struct molt_error **err)
{
    CLEANUP_FREE char *what = molt_xasprintf("%s/%s", vg, name);
    char *argv[] = {(char *)"lvremove", (char *)"-f", (char *)"-y", what, NULL};
    int r = molt_lv_exists(vg, name, err);
    if (r <= 0)
        return r;
    /* A backend that has just been told to go, or udev. */
    for (int tries = 0; (r = run(argv, NULL, err)) < 0 && tries < BUSY_TRIES; tries++) {
        if (!strstr(molt_error_text(*err), "in use") && !strstr(molt_error_text(*err), "busy"))
            break;
        molt_error_clear(err);
        molt_sleep_ms(BUSY_WAIT_MS);
    }
    return r;
}

int molt_lv_rename(const char *vg, const char *from, const char *to, struct molt_error **err)
{
    char *argv[] = {(char *)"lvrename", (char *)vg, (char *)from, (char *)to, NULL};
    return run(argv, NULL, err);
}
