/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* CRIU's stats images: two magics, a length, one protobuf message of small numbers. */
#include <string.h>

#include "base/cleanup.h"
#include "base/fsio.h"
#include "base/strbuf.h"
#include "procmig/dump.h"
#include "procmig/pb.h"

#define SERVICE_MAGIC 0x55105940u
#define STATS_MAGIC   0x57093306u
#define STATS_MAX     65536

static uint32_t le32(const unsigned char *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static void store(struct molt_dump_stats *s, bool dump, uint64_t field, uint64_t v)
{
    uint64_t *at = NULL;

    if (dump)
        switch (field) {
        case 1:
            at = &s->freezing_us;
            break;
        case 2:
            at = &s->frozen_us;
            break;
        case 3:
            at = &s->memdump_us;
            break;
        case 4:
            at = &s->memwrite_us;
            break;
        case 5:
            at = &s->pages_scanned;
            break;
        case 7:
            at = &s->pages_written;
            break;
        default:
            break;
        }
    else
        switch (field) {
        case 3:
            at = &s->forking_us;
            break;
        case 4:
            at = &s->restore_us;
            break;
        case 5:
            at = &s->pages_restored;
            break;
        default:
            break;
        }
    if (at)
        *at = v;
}

static bool message(const struct molt__pb_field *of, struct molt_dump_stats *s)
{
    struct molt__pb m = molt__pb_over(of->data, of->len);
    struct molt__pb_field f;
    int more;

    while ((more = molt__pb_next(&m, &f)) > 0) {
        if (f.is_bytes)
            return false;
        store(s, of->number == 1, f.number, f.value);
    }
    return more == 0;
}

int molt__stats_parse(const void *data, size_t len, struct molt_dump_stats *s, struct molt_error **err)
{
    const unsigned char *p = data;
    struct molt_dump_stats got = *s;
    struct molt__pb_field f;
    int more;

    if (len < 12 || le32(p) != SERVICE_MAGIC || le32(p + 4) != STATS_MAGIC || le32(p + 8) != len - 12)
        return molt_error_set(err, MOLT_E_PROTOCOL, "not a statistics image of CRIU");
    struct molt__pb m = molt__pb_over(p + 12, len - 12);
    while ((more = molt__pb_next(&m, &f)) > 0)
        if (!f.is_bytes || (f.number <= 2 && !message(&f, &got)))
            break;
    if (more != 0)
        return molt_error_set(err, MOLT_E_PROTOCOL, "malformed statistics image of CRIU");
    *s = got;
    return 0;
}

int molt__stats_read(const char *dir, const char *which, struct molt_dump_stats *s, struct molt_error **err)
{
    CLEANUP_FREE char *path = molt_xasprintf("%s/stats-%s", dir, which), *data = NULL;
    size_t len;
    int r;

    if (!molt_exists(path))
        return 0;
    r = molt_read_file(path, STATS_MAX, &data, &len, err);
    return r < 0 ? r : molt__stats_parse(data, len, s, err);
}

struct molt_json *molt_dump_stats_json(const struct molt_dump_stats *s)
{
    const struct {
        const char *key;
        uint64_t v;
    } all[] = {{"freezing_us", s->freezing_us},       {"frozen_us", s->frozen_us},
               {"memdump_us", s->memdump_us},         {"memwrite_us", s->memwrite_us},
               {"pages_scanned", s->pages_scanned},   {"pages_written", s->pages_written},
               {"forking_us", s->forking_us},         {"restore_us", s->restore_us},
               {"pages_restored", s->pages_restored}, {"wall_us", s->wall_us},
               {"before_us", s->before_us},           {"asked_us", s->asked_us},
               {"image_bytes", s->image_bytes}};
    struct molt_json *v = molt_json_object();

    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
        molt_json_set_int(v, all[i].key, (int64_t)all[i].v);
    if (s->armed)
        molt_json_set_bool(v, "armed", true);
    return v;
}
