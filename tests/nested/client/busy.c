/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A service that writes: SQLite commits, a log, a mail spool, a file changed in place. It counts in memory alone and never
 * reads back, so that a write which a move lost leaves a gap. Only of a file that is open and deleted it reads what it
 * wrote before, and ends when that is not there.
 *   busy run DIR SPOOL     until it is killed
 *   busy check DIR SPOOL   SQLite's own check, and each row, line, mail and record; prints how many
 *   busy xattr PATH VALUE  sets user.proof
 */
#include <fcntl.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>
#include <unistd.h>

enum { RECORDS = 4096, RECORD = 64, MAIL_EACH = 8, PAUSE_US = 20000 };

static int fail(const char *what, long n)
{
    fprintf(stderr, "busy: %s (%ld)\n", what, n);
    return 1;
}

static void text_of(long id, char out[64])
{
    snprintf(out, 64, "order %ld sum %lx", id, (unsigned long)id * 2654435761ul);
}

static FILE *open_append(const char *dir, const char *name)
{
    char path[256];
    snprintf(path, sizeof(path), "%s/%s", dir, name);
    return fopen(path, "a");
}

static sqlite3 *open_db(const char *dir, int flags)
{
    char path[256];
    sqlite3 *db = NULL;
    snprintf(path, sizeof(path), "%s/shop.db", dir);
    if (sqlite3_open_v2(path, &db, flags, NULL) != SQLITE_OK)
        exit(fail(sqlite3_errmsg(db), 0));
    return db;
}

static int run(const char *dir, const char *spool)
{
    char path[256], text[64], record[RECORD];
    sqlite3_stmt *put = NULL;
    sqlite3 *db = open_db(dir, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE);
    FILE *log = open_append(dir, "app.log"), *mail = fopen(spool, "a");
    snprintf(path, sizeof(path), "%s/table.dat", dir);
    int table = open(path, O_RDWR | O_CREAT, 0644);
    snprintf(path, sizeof(path), "%s/deleted", dir);
    int deleted = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
    unlink(path);
    if (!log || !mail || table < 0 || deleted < 0 || sqlite3_exec(db, "PRAGMA synchronous=FULL; CREATE TABLE orders(id INTEGER PRIMARY KEY, text TEXT)", NULL, NULL, NULL))
        return fail("cannot begin", 0);
    if (sqlite3_prepare_v2(db, "INSERT INTO orders VALUES(?, ?)", -1, &put, NULL) != SQLITE_OK)
        return fail(sqlite3_errmsg(db), 0);
    for (long id = 1;; id++) {
        text_of(id, text);
        sqlite3_bind_int64(put, 1, id);
        sqlite3_bind_text(put, 2, text, -1, SQLITE_STATIC);
        if (sqlite3_step(put) != SQLITE_DONE)
            return fail(sqlite3_errmsg(db), id);
        sqlite3_reset(put);
        fprintf(log, "%ld %s\n", id, text);
        if (fflush(log) || fdatasync(fileno(log)))
            return fail("log", id);
        memset(record, ' ', sizeof(record));
        snprintf(record, sizeof(record), "%ld", id);
        if (pwrite(table, record, RECORD, id % RECORDS * RECORD) != RECORD)
            return fail("table", id);
        if (id % MAIL_EACH == 0) {
            fprintf(mail, "From shop\nSubject: %ld\n\n%s\n\n", id / MAIL_EACH, text);
            if (fflush(mail))
                return fail("mail", id);
        }
        long before = 0;
        if (pwrite(deleted, &id, sizeof(id), id * (long)sizeof(id)) < 0 ||
            (id > 1 && (pread(deleted, &before, sizeof(before), (id - 1) * (long)sizeof(id)) != sizeof(before) || before != id - 1)))
            return fail("the deleted file", id);
        usleep(PAUSE_US);
    }
}

static long check_rows(sqlite3 *db)
{
    sqlite3_stmt *s = NULL;
    char text[64];
    long n = 0;
    if (sqlite3_prepare_v2(db, "PRAGMA integrity_check", -1, &s, NULL) != SQLITE_OK || sqlite3_step(s) != SQLITE_ROW ||
        strcmp((const char *)sqlite3_column_text(s, 0), "ok") != 0)
        exit(fail("integrity_check", 0));
    sqlite3_finalize(s);
    if (sqlite3_prepare_v2(db, "SELECT id, text FROM orders ORDER BY id", -1, &s, NULL) != SQLITE_OK)
        exit(fail("select", 0));
    while (sqlite3_step(s) == SQLITE_ROW) {
        text_of(++n, text);
        if (sqlite3_column_int64(s, 0) != n || strcmp((const char *)sqlite3_column_text(s, 1), text) != 0)
            exit(fail("a row is lost or wrong", n));
    }
    sqlite3_finalize(s);
    return n;
}

static long check_log(const char *dir)
{
    char path[256], line[256], want[128], text[64];
    long n = 0;
    snprintf(path, sizeof(path), "%s/app.log", dir);
    FILE *f = fopen(path, "r");
    while (f && fgets(line, sizeof(line), f)) {
        text_of(++n, text);
        snprintf(want, sizeof(want), "%ld %s\n", n, text);
        if (strcmp(line, want) != 0)
            exit(fail("a line of the log is lost or wrong", n));
    }
    return n;
}

static long check_mail(const char *spool)
{
    char line[256];
    long n = 0, got;
    FILE *f = fopen(spool, "r");
    while (f && fgets(line, sizeof(line), f))
        if (sscanf(line, "Subject: %ld", &got) == 1 && got != ++n)
            exit(fail("a mail is lost", n));
    return n;
}

static int check(const char *dir, const char *spool)
{
    char path[256], record[RECORD + 1] = "";
    long rows = check_rows(open_db(dir, SQLITE_OPEN_READWRITE)), lines = check_log(dir), mails = check_mail(spool);
    snprintf(path, sizeof(path), "%s/table.dat", dir);
    int table = open(path, O_RDONLY);
    for (long id = rows > RECORDS - 2 ? rows - RECORDS + 2 : 1; id < rows; id++)
        if (pread(table, record, RECORD, id % RECORDS * RECORD) != RECORD || atol(record) != id)
            return fail("a record is lost", id);
    if (lines < rows - 1 || lines > rows || mails < lines / MAIL_EACH - 1 || mails > lines / MAIL_EACH)
        return fail("rows, lines and mails do not agree", lines);
    printf("%ld rows, %ld lines, %ld mails\n", rows, lines, mails);
    return 0;
}

int main(int argc, char **argv)
{
    if (argc == 4 && strcmp(argv[1], "run") == 0)
        return run(argv[2], argv[3]);
    if (argc == 4 && strcmp(argv[1], "check") == 0)
        return check(argv[2], argv[3]);
    if (argc == 4 && strcmp(argv[1], "xattr") == 0)
        return setxattr(argv[2], "user.proof", argv[3], strlen(argv[3]), 0) ? fail("setxattr", 0) : 0;
    return fail("usage: busy run|check DIR SPOOL, busy xattr PATH VALUE", 2);
}
