/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "merge/debversion.h"

#include <ctype.h>
#include <string.h>

/* '~' sorts before the end of a part, the end before letters, letters before everything else. */
static int order(char c)
{
    if (c == '~')
        return -1;
    if (c == '\0' || isdigit((unsigned char)c))
        return 0;
    return isalpha((unsigned char)c) ? (unsigned char)c : (unsigned char)c + 256;
}

struct part {
    const char *p, *end;
};

static char at(const struct part *x) { return x->p < x->end ? *x->p : '\0'; }

/* Runs of other characters and of digits in turn; digits by their value, whatever their length. */
static int compare_part(struct part a, struct part b)
{
    while (a.p < a.end || b.p < b.end) {
        int first = 0;

        while ((at(&a) && !isdigit((unsigned char)at(&a))) || (at(&b) && !isdigit((unsigned char)at(&b)))) {
            int d = order(at(&a)) - order(at(&b));

            if (d)
                return d;
            a.p += a.p < a.end;
            b.p += b.p < b.end;
        }
        while (at(&a) == '0')
            a.p++;
        while (at(&b) == '0')
            b.p++;
        while (isdigit((unsigned char)at(&a)) && isdigit((unsigned char)at(&b))) {
            if (!first)
                first = at(&a) - at(&b);
            a.p++;
            b.p++;
        }
        if (isdigit((unsigned char)at(&a)))
            return 1;
        if (isdigit((unsigned char)at(&b)))
            return -1;
        if (first)
            return first;
    }
    return 0;
}

struct version {
    struct part epoch, upstream, revision;
};

static struct version split(const char *s)
{
    const char *colon = strchr(s, ':'), *dash = strrchr(s, '-'), *end = s + strlen(s);
    struct version v = {.epoch = {s, colon ? colon : s}, .upstream = {colon ? colon + 1 : s, end}, .revision = {end, end}};

    if (dash && dash >= v.upstream.p) {
        v.upstream.end = dash;
        v.revision.p = dash + 1;
    }
    return v;
}

int molt_deb_version_compare(const char *a, const char *b)
{
    struct version x = split(a), y = split(b);
    int r = compare_part(x.epoch, y.epoch);

    if (r == 0)
        r = compare_part(x.upstream, y.upstream);
    return r ? r : compare_part(x.revision, y.revision);
}
