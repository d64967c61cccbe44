/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Lists of random operations, as text. */
#include <stdlib.h>
#include <string.h>

#include "base/strbuf.h"
#include "model.h"

const char *const model_tops[N_TOPS] = {"act", "app", "bes", "drp", "mrg", "ref", "upg"};
#define RULES \
    "data active /*/act/**\nlog append /*/app/**\ncache drop /*/drp/**\netc-text merge /*/mrg/**\ndata refuse /*/ref/**\n" \
    "package-db upgrade /*/upg/**\n"
const char model_policy[] = RULES "log beside /*/bes/**\n", model_policy_no_beside[] = RULES "cache drop /*/bes/**\n";

#define OP_X(name, text, two, weight) {text, two, weight},
static const struct {
    const char *text;
    bool two;
    unsigned weight;
} kinds[] = {OPS(OP_X)};
#undef OP_X

static unsigned rnd(uint64_t *state, unsigned n)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (unsigned)(*state >> 33) % n;
}

/* Below one of the tops; few names, so that the same paths are met again as other things. */
static void random_path(uint64_t *r, char p[PATH_ROOM])
{
    static const char names[] = "aabbcd.e-%~";
    size_t n = (size_t)snprintf(p, PATH_ROOM, "%s", model_tops[rnd(r, N_TOPS)]);
    for (unsigned depth = 1 + rnd(r, 3); depth > 0; depth--) {
        char c = names[rnd(r, sizeof(names) - 1)];
        /* "a", "a-" and "a." sort around "a/" */
        n += (size_t)snprintf(p + n, PATH_ROOM - n, c == '-' || c == '.' ? "/a%c" : "/%c", c);
    }
}

static void add(struct ops *o, uint64_t *r, enum side side, unsigned phase)
{
    unsigned total = 0, pick;
    for (unsigned i = 0; i < N_OPS; i++)
        total += kinds[i].weight;
    pick = rnd(r, total);
    struct op x = {.side = (uint8_t)side, .phase = (uint8_t)phase, .arg = rnd(r, 1u << 16)};
    while (pick >= kinds[x.kind].weight)
        pick -= kinds[x.kind++].weight;
    random_path(r, x.path);
    if (kinds[x.kind].two)
        random_path(r, x.to);
    /* Paths that were used before are worth more. */
    if (o->n && rnd(r, 3))
        memcpy(x.path, o->v[rnd(r, (unsigned)o->n)].path, PATH_ROOM);
    MOLT_GROW(o->v, o->n, o->cap);
    o->v[o->n++] = x;
}

void ops_random(unsigned seed, struct ops *ret)
{
    uint64_t r = (seed + UINT64_C(1)) * UINT64_C(0x9e3779b97f4a7c15);
    memset(ret, 0, sizeof(*ret));
    ret->seed = seed;
    ret->active_wins = seed % 2; /* cases of one answer are merged together */
    for (unsigned n = 10 + rnd(&r, 50); n > 0; n--)
        add(ret, &r, BASE, 0);
    size_t first = ret->n;
    for (unsigned n = rnd(&r, 20); n > 0; n--)
        add(ret, &r, ACTIVE, 0);
    size_t last = ret->n;
    for (unsigned n = rnd(&r, 20); n > 0; n--)
        add(ret, &r, UPGRADE, 0);
    /* Sometimes both do the same. */
    for (size_t i = first; i < last && rnd(&r, 8) == 0; i++) {
        struct op x = ret->v[i];
        x.side = UPGRADE;
        MOLT_GROW(ret->v, ret->n, ret->cap);
        ret->v[ret->n++] = x;
    }
    for (unsigned phase = 1; phase < PASSES; phase++)
        for (unsigned n = rnd(&r, 12); n > 0; n--)
            add(ret, &r, ACTIVE, phase);
}

struct ops ops_copy(const struct ops *o)
{
    struct ops c = *o;
    c.cap = o->n + 1;
    c.v = molt_xmalloc(c.cap * sizeof(*c.v));
    memcpy(c.v, o->v, o->n * sizeof(*c.v));
    return c;
}

void ops_free(struct ops *o)
{
    free(o->v);
    memset(o, 0, sizeof(*o));
}

void ops_print(FILE *to, const struct ops *o)
{
    static const char *const sides[] = {"base", "active", "upgrade"};
    fprintf(to, "seed %u, %zu operations, open conflicts go to the %s:\n", o->seed, o->n, o->active_wins ? "active" : "upgrade");
    for (size_t i = 0; i < o->n; i++) {
        const struct op *x = &o->v[i];
        fprintf(to, "  %s", sides[x->side]);
        if (x->side == ACTIVE)
            fprintf(to, " before pass %u", x->phase + 1);
        fprintf(to, ": %s /%s%s%s (%u)\n", kinds[x->kind].text, x->path, kinds[x->kind].two ? " /" : "",
                kinds[x->kind].two ? x->to : "", x->arg);
    }
}

const char *ops_path(const char *path)
{
    static char out[PATH_ROOM * 241];
    char *d = out;
    for (; *path; path++) {
        if (*path == '~') {
            memset(d, 'l', 240);
            d += 240;
        } else if (*path == '%') {
            memcpy(d, "\xff\n\xc3", 3);
            d += 3;
        } else {
            *d++ = *path;
        }
    }
    *d = '\0';
    return out;
}
