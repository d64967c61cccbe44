/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Events and log lines: an updating line a step on a terminal, else stamped lines, JSON lines for programs. */
#include "cli/cli.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"

struct cli_progress {
    enum cli_output output;
    int verbose;
    pthread_mutex_t lock; /* events come from the library's thread, ticks and messages from ours */
    char *operation;
    char *step, *text; /* in work, with what it last said */
    bool undo;         /* the step is being undone */
    int64_t began_ms;
    int percent;
    bool drawn; /* the cursor stands behind an unfinished line */
};

struct cli_progress *cli_progress_new(enum cli_output output, int verbose)
{
    struct cli_progress *p = molt_xcalloc(1, sizeof(*p));

    p->output = output;
    p->verbose = verbose;
    p->percent = -1;
    pthread_mutex_init(&p->lock, NULL);
    return p;
}

static void set(char **where, const char *s)
{
    free(*where);
    *where = s ? molt_xstrdup(s) : NULL;
}

static void wipe(struct cli_progress *p)
{
    if (p->drawn)
        fputs("\r\033[K", stderr);
    p->drawn = false;
}

static void draw(struct cli_progress *p, bool final)
{
    CLEANUP_STRBUF struct molt_strbuf b = MOLT_STRBUF_INIT;
    double elapsed = (double)(molt_mono_ms() - p->began_ms) / 1000;
    struct winsize ws = {0};
    int width = ioctl(STDERR_FILENO, TIOCGWINSZ, &ws) == 0 && ws.ws_col > 20 ? ws.ws_col - 1 : 79;

    if (!p->step)
        return;
    molt_strbuf_addf(&b, "  %s%-*s %7.1f s", p->undo ? "undo " : "", p->undo ? 13 : 18, p->step, elapsed);
    if (!final && p->percent >= 0)
        molt_strbuf_addf(&b, " %3d %%", p->percent);
    if (!final && p->text)
        molt_strbuf_addf(&b, "  %s", p->text);
    wipe(p);
    fprintf(stderr, "%.*s", width, molt_strbuf_str(&b));
    p->drawn = true;
    if (final) {
        fputc('\n', stderr);
        p->drawn = false;
    }
    fflush(stderr);
}

static void end_step(struct cli_progress *p)
{
    if (p->output == CLI_OUTPUT_TERMINAL)
        draw(p, true);
    set(&p->step, NULL);
    set(&p->text, NULL);
    p->percent = -1;
}

static void begin_step(struct cli_progress *p, const char *name, bool undo)
{
    end_step(p);
    set(&p->step, name ? name : "?");
    p->undo = undo;
    p->began_ms = molt_mono_ms();
    if (p->output == CLI_OUTPUT_TERMINAL)
        draw(p, false);
}

static void event_terminal(struct cli_progress *p, const xenmolt_event *e)
{
    if (molt_streq(e->kind, "step")) {
        begin_step(p, e->name, false);
    } else if (molt_streq(e->kind, "undo")) {
        begin_step(p, e->name, true);
    } else if (molt_streq(e->kind, "step-done")) {
        end_step(p);
    } else if (molt_streq(e->kind, "progress")) {
        set(&p->text, e->text);
        p->percent = e->percent;
        draw(p, false);
    } else if (molt_streq(e->kind, "state")) {
        if (molt_streq(e->name, "undoing"))
            end_step(p);
        wipe(p);
        if (molt_streq(e->name, "running"))
            fprintf(stderr, "operation %s\n", e->operation ? e->operation : "?");
        else if (molt_streq(e->name, "undoing"))
            fprintf(stderr, "going back\n");
        else if (molt_streq(e->name, "waiting"))
            fprintf(stderr, "waiting; xenmolt delta-merge -n %s shows the merge, op-continue goes on, op-abort undoes\n",
                    e->operation ? e->operation : "OPERATION");
        else if (p->verbose)
            fprintf(stderr, "state: %s\n", e->name ? e->name : "?");
    } else if (molt_streq(e->kind, "check") && p->verbose) {
        wipe(p);
        fprintf(stderr, "  check %s: %s\n", e->name ? e->name : "?", e->text ? e->text : "");
    }
}

static void event_plain(struct cli_progress *p, const xenmolt_event *e)
{
    char stamp[MOLT_STAMP_MAX];

    if (molt_streq(e->kind, "log") || (molt_streq(e->kind, "check") && !p->verbose))
        return; /* log lines come by the log callback */
    fprintf(stderr, "%s %s %s", molt_stamp(e->at_us ? e->at_us : molt_now_us(), stamp),
            e->kind ? e->kind : "event", e->name ? e->name : (e->operation ? e->operation : ""));
    if (e->percent >= 0 && molt_streq(e->kind, "progress"))
        fprintf(stderr, " %d%%", e->percent);
    if (molt_streq(e->name, "running") && e->operation)
        fprintf(stderr, " %s", e->operation);
    fprintf(stderr, "%s%s\n", e->text ? ": " : "", e->text ? e->text : "");
}

static void event_json(const xenmolt_event *e)
{
    CLEANUP_JSON struct molt_json *v = molt_json_object();
    char stamp[MOLT_STAMP_MAX];

    molt_json_set_string(v, "event", e->kind);
    molt_json_set_string(v, "at", molt_stamp(e->at_us ? e->at_us : molt_now_us(), stamp));
    molt_json_set_string(v, "operation", e->operation);
    molt_json_set_string(v, "name", e->name);
    molt_json_set_string(v, "text", e->text);
    if (e->percent >= 0)
        molt_json_set_int(v, "percent", e->percent);
    cli_print_json(v, false);
}

void cli_progress_event(void *ctx, const xenmolt_event *e)
{
    struct cli_progress *p = ctx;

    pthread_mutex_lock(&p->lock);
    if (e->operation && !p->operation)
        p->operation = molt_xstrdup(e->operation);
    switch (p->output) {
    case CLI_OUTPUT_TERMINAL: event_terminal(p, e); break;
    case CLI_OUTPUT_PLAIN: event_plain(p, e); break;
    case CLI_OUTPUT_JSON: event_json(e); break;
    }
    pthread_mutex_unlock(&p->lock);
}

void cli_progress_log(void *ctx, enum xenmolt_level level, const char *line)
{
    static const char *const names[] = {"error", "warning", "info", "debug"};

    cli_progress_say(ctx, "%s: %s", (unsigned)level < 4 ? names[level] : "log", line);
}

void cli_progress_say(struct cli_progress *p, const char *fmt, ...)
{
    va_list ap;

    pthread_mutex_lock(&p->lock);
    wipe(p);
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fputc('\n', stderr);
    if (p->output == CLI_OUTPUT_TERMINAL)
        draw(p, false);
    pthread_mutex_unlock(&p->lock);
}

void cli_progress_tick(struct cli_progress *p)
{
    pthread_mutex_lock(&p->lock);
    if (p->output == CLI_OUTPUT_TERMINAL)
        draw(p, false);
    pthread_mutex_unlock(&p->lock);
}

char *cli_progress_operation(struct cli_progress *p)
{
    char *id;

    pthread_mutex_lock(&p->lock);
    id = p->operation ? molt_xstrdup(p->operation) : NULL;
    pthread_mutex_unlock(&p->lock);
    return id;
}

void cli_progress_free(struct cli_progress *p)
{
    end_step(p);
    free(p->operation);
    pthread_mutex_destroy(&p->lock);
    free(p);
}
