/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "procmig/early.h"

#include <stdio.h>
#include <string.h>
#include <sys/inotify.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/strbuf.h"
#include "procmig/carry.h"
#include "procmig/dump.h"
#include "procmig/residue.h"

void molt__early_begin(struct molt__early *e, const struct molt_restore_spec *s, const char *residue, const struct molt__network *net, bool paged)
{
    *e = (struct molt__early){.spec = s, .residue = molt_xstrdup(residue), .network = net, .watch = inotify_init1(IN_CLOEXEC | IN_NONBLOCK)};
    if (paged)
        e->marking = molt_marking_new(s->images, MOLT_LAZY_EAGER_MAX, s->before_mb << 20);
    if (e->watch >= 0 && inotify_add_watch(e->watch, s->images, IN_CLOSE_WRITE | IN_ONLYDIR) < 0) {
        close(e->watch);
        e->watch = -1;
    }
}

void molt__early_free(struct molt__early *e)
{
    if (e->watch >= 0)
        close(e->watch);
    molt_marking_free(e->marking);
    molt_json_free(e->meta);
    free(e->residue);
    *e = (struct molt__early)MOLT__EARLY_NONE;
}

/* What is new here by this restore, for its undo: before any of it is made, and once, since afterwards it is not new. */
static int note_residue(struct molt__early *e, const struct molt_json *meta, struct molt_error **err)
{
    struct molt__residue rs = {NULL, 0, 0};
    int r;

    if (e->noted)
        return 0;
    molt__residue_note(&rs, meta);
    r = molt__residue_save(&rs, e->residue, err);
    molt__residue_free(&rs);
    e->noted = r == 0;
    return r;
}

/* Without them the connections' peers are asked for, and wait. */
static void know_neighbours(const struct molt__early *e, const struct molt_json *meta)
{
    CLEANUP_ERROR struct molt_error *why = NULL;

    if (e->network && molt__neighbours_place(e->network, molt_json_get(meta, "neighbours"), NULL, &why) < 0)
        fprintf(stderr, "restore of %s: %s\n", e->spec->unit, molt_error_text(why));
}

/* What travels beside the images was sent before the file that names it. */
static int place(struct molt__early *e, struct molt_error **err)
{
    CLEANUP_JSON struct molt_json *meta = NULL;
    int r = molt__dump_meta_load(e->spec->images, &meta, err);

    if (r == 0)
        r = note_residue(e, meta, err);
    if (r == 0)
        r = molt__carry_place(molt_json_get(meta, "carry"), e->spec->images, err);
    if (r < 0)
        return r;
    know_neighbours(e, meta);
    molt_json_free(e->meta);
    e->meta = MOLT_STEAL_PTR(meta);
    return 0;
}

static void arrived(struct molt__early *e, const char *name)
{
    /* What fails here is tried once more at the end. */
    if (!strcmp(name, MOLT_DUMP_META))
        (void)place(e, NULL);
    else if (e->marking)
        (void)molt_marking_take(e->marking, name, NULL);
}

void molt__early_look(struct molt__early *e)
{
    union {
        struct inotify_event aligned;
        char bytes[4096];
    } buf;
    ssize_t n = read(e->watch, buf.bytes, sizeof(buf.bytes));

    for (ssize_t at = 0; at < n;) {
        const struct inotify_event *event = (const void *)(buf.bytes + at);

        at += (ssize_t)(sizeof(*event) + event->len);
        if (event->len > 0)
            arrived(e, event->name);
    }
}

int molt__early_end(struct molt__early *e, struct molt_lazy_count *count, struct molt_error **err)
{
    int r = e->meta ? 0 : place(e, err);

    *count = (struct molt_lazy_count){0, 0};
    return r == 0 && e->marking ? molt_marking_end(e->marking, count, err) : r;
}
