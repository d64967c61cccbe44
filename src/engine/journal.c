/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The journal: one JSON object a line. The last member is always "crc":"xxxxxxxx", the CRC-32 of the line as
 * it would be without that member; so the check needs the text only, not a canonical form of JSON.
 */
#include "engine/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/fault.h"
#include "base/fsio.h"

#define CRC_TAIL_LEN (sizeof(",\"crc\":\"00000000\"}") - 1)
#define JOURNAL_MAX (64u << 20)
/* Space set aside, so that a disk that filled up meanwhile does not keep us from journaling the way back. */
#define JOURNAL_RESERVE (256 << 10)

static uint32_t line_crc(const char *body, size_t len)
{
    /* body lacks its closing brace, which is part of what is summed. */
    uLong c = crc32(0L, (const Bytef *)body, (uInt)len);
    return (uint32_t)crc32(c, (const Bytef *)"}", 1);
}

static void reserve(int fd)
{
    /* Best effort: not every file system can. */
    if (fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, JOURNAL_RESERVE) < 0)
        errno = 0;
}

int molt__journal_create(const char *path, struct molt_journal *j, struct molt_error **err)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_APPEND | O_CLOEXEC, 0600);

    if (fd < 0)
        return molt_error_errno(err, "create %s", path);
    reserve(fd);
    *j = (struct molt_journal){.fd = fd};
    return 0;
}

static int take_back(struct molt_journal *j, const char *what, struct molt_error **err)
{
    int saved = errno;

    if (ftruncate(j->fd, j->size) < 0)
        j->broken = true;
    errno = saved;
    return molt_error_errno(err, "journal: %s", what);
}

int molt__crash_point(const char *name, struct molt_error **err)
{
    if (molt_fault(name) || molt_fault("point"))
        return molt_error_set(err, MOLT_E_INTERNAL, "fault injected at %s", name);
    return 0;
}

static int record_point(const struct molt_json *rec, struct molt_error **err)
{
    const char *type = molt_json_get_string(rec, "type"), *name = molt_json_get_string(rec, "step");
    char point[160];

    if (!name)
        name = molt_json_get_string(rec, "state");
    if (!name)
        name = molt_json_get_string(rec, "kind");
    snprintf(point, sizeof(point), "journal:%s:%s", type ? type : "-", name ? name : "-");
    return molt__crash_point(point, err);
}

int molt__journal_append(struct molt_journal *j, struct molt_json *rec, enum molt__durable durable, struct molt_error **err)
{
    CLEANUP_STRBUF struct molt_strbuf line = MOLT_STRBUF_INIT;
    CLEANUP_FREE char *text = NULL;
    size_t len;

    if (j->fd < 0 || j->broken)
        return molt_error_set(err, MOLT_E_INTERNAL, "journal: not writable");
    molt_json_set_int(rec, "seq", j->seq + 1);
    molt_json_set_int(rec, "at", molt_now_us());
    text = molt_json_print(rec, false);
    len = strlen(text);
    /* A guest's words may be among the notes: what could not be read back would block every later recovery. */
    CLEANUP_JSON struct molt_json *back = NULL;
    int r = molt_json_parse(text, len, &back, err);
    if (r < 0) {
        molt_error_prefix(err, "journal: a record that could not be read back is not written");
        return r;
    }
    molt_strbuf_add(&line, text, len - 1);
    molt_strbuf_addf(&line, ",\"crc\":\"%08" PRIx32 "\"}\n", line_crc(text, len - 1));
    if (molt_write_all(j->fd, line.s, line.len) < 0)
        return take_back(j, "write", err);
    if (durable == MOLT__NOW && fdatasync(j->fd) < 0) {
        j->broken = true; /* what reached the disk is unknown */
        return molt_error_errno(err, "journal: fsync");
    }
    j->seq++;
    j->size += (off_t)line.len;
    return durable == MOLT__NOTE ? 0 : record_point(rec, err);
}

static int check_line(const char *line, size_t len, int64_t seq, struct molt_json **ret,
                      struct molt_error **err)
{
    CLEANUP_JSON struct molt_json *v = NULL;
    char want[CRC_TAIL_LEN + 1];
    int r;

    if (len <= CRC_TAIL_LEN)
        return molt_error_set(err, MOLT_E_PROTOCOL, "record %" PRId64 " is too short", seq);
    snprintf(want, sizeof(want), ",\"crc\":\"%08" PRIx32 "\"}", line_crc(line, len - CRC_TAIL_LEN));
    if (memcmp(line + len - CRC_TAIL_LEN, want, CRC_TAIL_LEN) != 0)
        return molt_error_set(err, MOLT_E_PROTOCOL, "record %" PRId64 " does not match its checksum", seq);
    r = molt_json_parse(line, len, &v, err);
    if (r < 0) {
        molt_error_prefix(err, "record %" PRId64, seq);
        return r;
    }
    if (molt_json_get_int(v, "seq", -1) != seq)
        return molt_error_set(err, MOLT_E_PROTOCOL, "record %" PRId64 " is missing or out of order", seq);
    *ret = MOLT_STEAL_PTR(v);
    return 0;
}

int molt__journal_read(const char *path, void (*fn)(void *ctx, const struct molt_json *rec), void *ctx,
                       off_t *ret_end, int64_t *ret_seq, struct molt_error **err)
{
    CLEANUP_FREE char *text = NULL;
    size_t len = 0, pos = 0;
    int64_t seq = 0;
    int r = molt_read_file(path, JOURNAL_MAX, &text, &len, err);

    if (r < 0)
        return r;
    while (pos < len) {
        CLEANUP_JSON struct molt_json *rec = NULL;
        const char *nl = memchr(text + pos, '\n', len - pos);

        if (!nl)
            break; /* torn: its writer died before anything was done on its strength */
        r = check_line(text + pos, (size_t)(nl - text) - pos, seq + 1, &rec, err);
        if (r < 0) {
            molt_error_prefix(err, "%s", path);
            return r;
        }
        seq++;
        pos = (size_t)(nl - text) + 1;
        fn(ctx, rec);
    }
    if (ret_end)
        *ret_end = (off_t)pos;
    if (ret_seq)
        *ret_seq = seq;
    return 0;
}

int molt__journal_open(const char *path, off_t end, int64_t seq, struct molt_journal *j,
                       struct molt_error **err)
{
    CLEANUP_CLOSE int fd = open(path, O_WRONLY | O_APPEND | O_CLOEXEC);

    if (fd < 0)
        return molt_error_errno(err, "open %s", path);
    if (ftruncate(fd, end) < 0 || fdatasync(fd) < 0)
        return molt_error_errno(err, "cut the torn end of %s", path);
    reserve(fd);
    *j = (struct molt_journal){.fd = MOLT_STEAL_FD(fd), .seq = seq, .size = end};
    return 0;
}

void molt__journal_close(struct molt_journal *j)
{
    if (j->fd >= 0)
        close(j->fd);
    j->fd = -1;
}
