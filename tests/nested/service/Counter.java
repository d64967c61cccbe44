// SPDX-License-Identifier: GPL-2.0-or-later
// A small stateful service for the test suite: counters in the heap, connections, a pool, a timer, a locked file.
//
//   "CID SEQ"  -> "CID SEQ CONNCOUNT GLOBAL PID", after "CID SEQ GLOBAL" has reached the log on disk;
//                 SEQ must be the connection's own count + 1, else "ERR ...".
//   "STAT"     -> "STAT uptime_s=.. pid=.. ticks=.. connections=.. global=.. java=.."

import java.io.BufferedReader;
import java.io.File;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.OutputStream;
import java.io.RandomAccessFile;
import java.net.ServerSocket;
import java.net.Socket;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.channels.FileLock;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.Timer;
import java.util.TimerTask;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicLong;

public final class Counter {
    private static final int RECORD = 64;

    private final long startNanos = System.nanoTime();
    private final long pid = ProcessHandle.current().pid();
    private final AtomicInteger connections = new AtomicInteger();
    private final AtomicLong ticks = new AtomicLong();
    private final ExecutorService pool = Executors.newCachedThreadPool();
    private final FileChannel log;
    private final RandomAccessFile data;
    private final FileLock lock;
    private final Object forceTurn = new Object();
    private long global;
    private long forced;

    private Counter(Path dir) throws IOException {
        log = FileChannel.open(dir.resolve("log"),
                StandardOpenOption.CREATE, StandardOpenOption.WRITE, StandardOpenOption.APPEND);
        data = new RandomAccessFile(new File(dir.toFile(), "data"), "rw");
        lock = data.getChannel().tryLock();
        if (lock == null) {
            throw new IOException("another instance holds the data file");
        }
        data.seek(data.length());
    }

    /** Counts one request and has it on disk before the caller may answer. One force serves all that wait for it. */
    private long record(String cid, long seq) throws IOException {
        long number;
        synchronized (this) {
            number = global + 1;
            ByteBuffer line = StandardCharsets.US_ASCII.encode(cid + " " + seq + " " + number + "\n");
            while (line.hasRemaining()) {
                log.write(line);
            }
            global = number;
        }
        synchronized (forceTurn) {
            if (forced < number) {
                long written = total();
                log.force(false);
                forced = written;
            }
        }
        return number;
    }

    private synchronized long total() {
        return global;
    }

    /** Once a second; every tenth time a fixed-size record goes to the locked file at the kept position. */
    private void tick() {
        long n = ticks.incrementAndGet();
        if (n % 10 != 0) {
            return;
        }
        try {
            if (!lock.isValid()) {
                throw new IOException("lock lost");
            }
            String text = String.format("%-" + (RECORD - 1) + "s\n", "tick " + n + " global " + total());
            data.write(text.getBytes(StandardCharsets.US_ASCII));
        } catch (IOException e) {
            System.err.println("data file: " + e);
        }
    }

    private String answer(String line, long[] own) throws IOException {
        if (line.equals("STAT")) {
            return "STAT uptime_s=" + (System.nanoTime() - startNanos) / 1_000_000_000L + " pid=" + pid
                    + " ticks=" + ticks.get() + " connections=" + connections.get() + " global=" + total()
                    + " java=" + System.getProperty("java.version");
        }
        String[] word = line.split(" ");
        if (word.length != 2 || word[0].isEmpty() || word[0].length() > 64) {
            return "ERR syntax";
        }
        long seq;
        try {
            seq = Long.parseLong(word[1]);
        } catch (NumberFormatException e) {
            return "ERR number";
        }
        if (seq != own[0] + 1) {
            return "ERR seq " + seq + " after " + own[0];
        }
        long number = record(word[0], seq);
        own[0] = seq;
        return word[0] + " " + seq + " " + own[0] + " " + number + " " + pid;
    }

    private void serve(Socket socket) {
        connections.incrementAndGet();
        long[] own = {0};
        try (socket;
             BufferedReader in = new BufferedReader(
                     new InputStreamReader(socket.getInputStream(), StandardCharsets.US_ASCII), 512)) {
            OutputStream out = socket.getOutputStream();
            String line;
            while ((line = in.readLine()) != null) {
                out.write((answer(line, own) + "\n").getBytes(StandardCharsets.US_ASCII));
            }
        } catch (IOException e) {
            System.err.println("connection: " + e);
        } finally {
            connections.decrementAndGet();
        }
    }

    private void run(int port) throws IOException {
        Timer timer = new Timer("heartbeat", true);
        timer.scheduleAtFixedRate(new TimerTask() {
            @Override
            public void run() {
                tick();
            }
        }, 1000, 1000);
        try (ServerSocket listener = new ServerSocket(port, 128)) {
            System.out.println("counter: port " + port + " pid " + pid);
            while (true) {
                Socket socket = listener.accept();
                socket.setTcpNoDelay(true);
                pool.execute(() -> serve(socket));
            }
        }
    }

    public static void main(String[] args) throws IOException {
        Path dir = Path.of(args.length > 0 ? args[0] : "/var/lib/counter");
        int port = args.length > 1 ? Integer.parseInt(args[1]) : 7000;
        new Counter(dir).run(port);
    }
}
