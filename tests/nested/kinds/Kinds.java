// SPDX-License-Identifier: GPL-2.0-or-later
// A JVM with many kinds of things in it, for the test suite: a selector, N threads that tick, a direct buffer, a mapped file, a lock, a
// child on pipes, scheduled tasks, compiled code. The protocol is that of Counter.java, and "CHECK" -> "OK" or "BAD what".

import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.net.InetSocketAddress;
import java.nio.ByteBuffer;
import java.nio.MappedByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.channels.FileLock;
import java.nio.channels.SelectionKey;
import java.nio.channels.Selector;
import java.nio.channels.ServerSocketChannel;
import java.nio.channels.SocketChannel;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.Iterator;
import java.util.concurrent.Executors;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicLong;
import java.util.concurrent.atomic.AtomicLongArray;
import java.util.function.LongSupplier;

public final class Kinds {
    private static final int DIRECT = 8 << 20;
    private static final long WAIT_NS = 20_000_000_000L;

    private final long pid = ProcessHandle.current().pid();
    private final int threads;
    private final AtomicLongArray beats;
    private final long[] seen;
    private final AtomicLong ticks = new AtomicLong();
    private final AtomicLong backwards = new AtomicLong();
    private final ByteBuffer direct = ByteBuffer.allocateDirect(DIRECT);
    private final MappedByteBuffer mapped;
    private final FileLock lock;
    private final Process child;
    private final byte[][] live = new byte[4096][];
    private long global;
    private final long begun = System.nanoTime();
    private long seenTicks;

    private static final class Client {
        final ByteBuffer in = ByteBuffer.allocate(512);
        long own;
    }

    private Kinds(Path dir, int threads) throws IOException {
        this.threads = threads;
        beats = new AtomicLongArray(threads);
        seen = new long[threads];
        FileChannel f = FileChannel.open(dir.resolve("mapped"), StandardOpenOption.CREATE, StandardOpenOption.READ, StandardOpenOption.WRITE);
        mapped = f.map(FileChannel.MapMode.READ_WRITE, 0, 1 << 20);
        lock = f.tryLock();
        if (lock == null) {
            throw new IOException("locked by another");
        }
        for (int i = 0; i < DIRECT; i += 8) {
            direct.putLong(i, i * 0x9E3779B97F4A7C15L);
        }
        for (int i = 0; i < live.length; i++) {
            live[i] = new byte[1024];
            live[i][i % 1024] = (byte) i;
        }
        child = new ProcessBuilder("cat").start();
    }

    private void beat(int i) {
        long last = System.nanoTime();
        try {
            while (true) {
                Thread.sleep(20000);
                long now = System.nanoTime();
                if (now < last) {
                    backwards.incrementAndGet();
                }
                last = now;
                beats.incrementAndGet(i);
            }
        } catch (InterruptedException e) {
            beats.set(i, -1);
        }
    }

    // What goes on has gone on since the last look, or does so within a while.
    private static boolean grows(LongSupplier counter, long seen, long until) {
        while (counter.getAsLong() <= seen) {
            if (System.nanoTime() > until) {
                return false;
            }
            try {
                Thread.sleep(50);
            } catch (InterruptedException e) {
                return false;
            }
        }
        return true;
    }

    private String check() throws IOException {
        for (int i = 0; i < DIRECT; i += 8) {
            if (direct.getLong(i) != i * 0x9E3779B97F4A7C15L) {
                return "BAD direct buffer at " + i;
            }
        }
        for (int i = 0; i < live.length; i++) {
            if (live[i][i % 1024] != (byte) i) {
                return "BAD heap";
            }
        }
        long until = System.nanoTime() + WAIT_NS;
        for (int i = 0; i < threads; i++) {
            int n = i;
            if (!grows(() -> beats.get(n), seen[i], until)) {
                return "BAD thread " + i;
            }
            seen[i] = beats.get(i);
        }
        if (ticks.get() > (System.nanoTime() - begun) / 1000000000L + 1) {
            return "BAD timer: more often than time has passed";
        }
        if (!grows(ticks::get, seenTicks, until)) {
            return "BAD timer";
        }
        seenTicks = ticks.get();
        if (backwards.get() != 0) {
            return "BAD clock";
        }
        if (mapped.getLong(0) != global) {
            return "BAD mapped file";
        }
        if (!lock.isValid()) {
            return "BAD lock";
        }
        OutputStream out = child.getOutputStream();
        InputStream in = child.getInputStream();
        byte[] line = ("child " + global + "\n").getBytes(StandardCharsets.US_ASCII);
        out.write(line);
        out.flush();
        byte[] back = in.readNBytes(line.length);
        if (!java.util.Arrays.equals(line, back) || !child.isAlive()) {
            return "BAD child";
        }
        System.gc();
        return "OK";
    }

    private String answer(String line, Client c) throws IOException {
        if (line.equals("CHECK")) {
            String said = check();
            System.out.println("kinds: checked: " + said);
            return said;
        }
        if (line.equals("STAT")) {
            return "STAT pid=" + pid + " ticks=" + ticks.get() + " global=" + global + " java=" + System.getProperty("java.version")
                    + " threads=" + Thread.activeCount();
        }
        String[] word = line.split(" ");
        if (word.length != 2) {
            return "ERR syntax";
        }
        long seq = Long.parseLong(word[1]);
        if (seq != c.own + 1) {
            return "ERR seq " + seq + " after " + c.own;
        }
        c.own = seq;
        global++;
        mapped.putLong(0, global);
        return word[0] + " " + seq + " " + c.own + " " + global + " " + pid;
    }

    private void hear(SelectionKey key) throws IOException {
        SocketChannel s = (SocketChannel) key.channel();
        Client c = (Client) key.attachment();
        if (s.read(c.in) < 0) {
            s.close();
            return;
        }
        c.in.flip();
        while (true) {
            int end = c.in.position();
            while (end < c.in.limit() && c.in.get(end) != '\n') {
                end++;
            }
            if (end == c.in.limit()) {
                break;
            }
            byte[] line = new byte[end - c.in.position()];
            c.in.get(line);
            c.in.get();
            ByteBuffer out = StandardCharsets.US_ASCII.encode(answer(new String(line, StandardCharsets.US_ASCII), c) + "\n");
            while (out.hasRemaining()) {
                s.write(out);
            }
        }
        c.in.compact();
    }

    private void run(int port) throws IOException {
        for (int i = 0; i < threads; i++) {
            int n = i;
            Thread t = new Thread(null, () -> beat(n), "beat-" + n, 128 << 10);
            t.setDaemon(true);
            t.start();
        }
        Executors.newScheduledThreadPool(2).scheduleAtFixedRate(ticks::incrementAndGet, 1, 1, TimeUnit.SECONDS);
        Selector selector = Selector.open();
        ServerSocketChannel listener = ServerSocketChannel.open();
        listener.bind(new InetSocketAddress(port), 128);
        listener.configureBlocking(false);
        listener.register(selector, SelectionKey.OP_ACCEPT);
        System.out.println("kinds: pid " + pid + ", java " + System.getProperty("java.version"));
        while (true) {
            selector.select();
            for (Iterator<SelectionKey> i = selector.selectedKeys().iterator(); i.hasNext();) {
                SelectionKey key = i.next();
                i.remove();
                if (key.isAcceptable()) {
                    SocketChannel s = listener.accept();
                    s.configureBlocking(false);
                    s.socket().setTcpNoDelay(true);
                    s.register(selector, SelectionKey.OP_READ, new Client());
                } else {
                    try {
                        hear(key);
                    } catch (IOException e) {
                        System.err.println("connection: " + e);
                        key.channel().close();
                    }
                }
            }
        }
    }

    public static void main(String[] args) throws IOException {
        new Kinds(Path.of("").toAbsolutePath(), Integer.parseInt(args[1])).run(Integer.parseInt(args[0]));
    }
}
