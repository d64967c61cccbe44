#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""A Python service for the test suite: asyncio, threads, a child on pipes, a database in memory and one on disk, a temporary file.

Its protocol is that of Counter.java, and "CHECK" -> "OK" or "BAD what".
"""
import asyncio
import mmap
import os
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time

PORT = int(sys.argv[1])


class Service:
    def __init__(self):
        self.total, self.ticks, self.seen, self.backwards = 0, 0, 0, False
        self.memory = sqlite3.connect(':memory:', check_same_thread=False)
        self.memory.execute('create table counted (n integer)')
        self.disk = sqlite3.connect('counted.db', check_same_thread=False)
        self.disk.execute('pragma journal_mode=wal')
        self.disk.execute('create table if not exists counted (n integer)')
        self.disk.execute('delete from counted')
        self.disk.commit()
        self.temporary = tempfile.TemporaryFile()
        self.temporary.write(b'kept')
        self.map = mmap.mmap(-1, 65536)
        self.child = subprocess.Popen(['sed', '-u', 's/^/child /'], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        threading.Thread(target=self.tick, daemon=True).start()

    def tick(self):
        last = time.monotonic()
        while True:
            time.sleep(0.5)
            now = time.monotonic()
            self.backwards |= now < last
            last, self.ticks = now, self.ticks + 1

    def count(self):
        self.total += 1
        self.memory.execute('insert into counted values (?)', (self.total,))
        self.disk.execute('insert into counted values (?)', (self.total,))
        self.disk.commit()
        self.map[0:8] = self.total.to_bytes(8, 'little')
        return self.total

    def check(self):
        for name, db in ('memory', self.memory), ('disk', self.disk):
            if db.execute('select count(*), coalesce(max(n), 0) from counted').fetchone() != (self.total, self.total):
                return 'BAD database in ' + name
        self.temporary.seek(0)
        if self.temporary.read() != b'kept':
            return 'BAD temporary file'
        if int.from_bytes(self.map[0:8], 'little') != self.total:
            return 'BAD mapped memory'
        self.child.stdin.write(b'%d\n' % self.total)
        self.child.stdin.flush()
        if self.child.stdout.readline() != b'child %d\n' % self.total:
            return 'BAD child'
        until = time.monotonic() + 10
        while self.ticks == self.seen and time.monotonic() < until:
            time.sleep(0.1)
        if self.backwards or self.ticks == self.seen:
            return 'BAD clock'
        self.seen = self.ticks
        return 'OK'

    async def serve(self, reader, writer):
        own = 0
        while line := (await reader.readline()).decode().strip():
            if line == 'CHECK':
                said = self.check()
                print('kinds: checked:', said, flush=True)
            else:
                cid, seq = line.split()
                if int(seq) != own + 1:
                    said = 'ERR seq %s after %d' % (seq, own)
                else:
                    own = int(seq)
                    said = '%s %d %d %d %d' % (cid, own, own, self.count(), os.getpid())
            writer.write(said.encode() + b'\n')
            await writer.drain()
        writer.close()

    async def run(self):
        server = await asyncio.start_server(self.serve, None, PORT)
        print('kinds: pid', os.getpid(), flush=True)
        async with server:
            await server.serve_forever()


asyncio.run(Service().run())
