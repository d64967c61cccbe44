/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "procmig/tcpclock.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "procmig/image.h"
#include "procmig/pb.h"

#define HEAD_MAX     4096 /* of an image: its one record; queues follow */
#define TIMESTAMP    9    /* tcp_stream_entry.timestamp, images/tcp-stream.proto */
#define TIMESTAMP_TAG (TIMESTAMP << 3)
#define WAIT_MS      4
#define FAST         1000 /* so much in WAIT_MS is no clock of milliseconds */

bool molt__tcp_bit_means_usec(void)
{
    CLEANUP_CLOSE int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    unsigned stamp = 1;
    int on = 1;
    socklen_t n = sizeof(stamp);

    if (fd < 0 || setsockopt(fd, IPPROTO_TCP, TCP_REPAIR, &on, sizeof(on)) < 0 || setsockopt(fd, IPPROTO_TCP, TCP_TIMESTAMP, &stamp, sizeof(stamp)) < 0)
        return false;
    molt_sleep_ms(WAIT_MS);
    /* On a machine that stood still meanwhile an old kernel's clock would have to be a second late to be taken for a new one. */
    return getsockopt(fd, IPPROTO_TCP, TCP_TIMESTAMP, &stamp, &n) == 0 && stamp > FAST;
}

/* Where the record's timestamp has its lowest byte (the first of the number); NULL: it has none. */
static const unsigned char *lowest_byte(const unsigned char *record, size_t len)
{
    struct molt__pb m = molt__pb_over(record, len);
    struct molt__pb_field f;

    for (const unsigned char *at = m.p; molt__pb_next(&m, &f) > 0; at = m.p)
        if (f.number == TIMESTAMP && !f.is_bytes && at[0] == TIMESTAMP_TAG)
            return at + 1;
    return NULL;
}

static int clear_one(int dirfd, const char *name, struct molt_error **err)
{
    CLEANUP_CLOSE int fd = openat(dirfd, name, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    unsigned char head[HEAD_MAX], plain;
    const unsigned char *record, *byte;
    struct molt__image m;
    ssize_t n;
    size_t len;
    int r;

    if (fd < 0 || (n = pread(fd, head, sizeof(head), 0)) < 0)
        return molt_error_errno(err, "read %s", name);
    r = molt__image_over(head, (size_t)n, MOLT_IMAGE_TCP_STREAM, &m, err);
    if (r == 0)
        r = molt__image_next(&m, &record, &len, err);
    byte = r > 0 ? lowest_byte(record, len) : NULL;
    if (r < 0 || !byte || !(*byte & 1))
        return r < 0 ? r : 0;
    plain = *byte & 0xfe;
    return pwrite(fd, &plain, 1, byte - head) == 1 ? 0 : molt_error_errno(err, "write %s", name);
}

int molt__tcp_clear_bit(const char *dir, struct molt_error **err)
{
    CLEANUP_CLOSEDIR DIR *d = opendir(dir);
    struct dirent *e;
    int r = 0;

    if (!d)
        return molt_error_errno(err, "open %s", dir);
    while (r == 0 && (e = readdir(d)))
        if (!strncmp(e->d_name, "tcp-stream-", strlen("tcp-stream-")))
            r = clear_one(dirfd(d), e->d_name, err);
    return r;
}
