// SPDX-License-Identifier: GPL-2.0-or-later
// Fills memory, writes some of it over and over, and runs another program's main in the same JVM:
//   Ballast MIB DIRTY_KIB_PER_SECOND CLASS [ARGUMENT...]

import java.util.Arrays;
import java.util.SplittableRandom;

public final class Ballast {
    private static final int MIB = 1 << 20;
    private static final int PAGE = 4096;
    private static final int TURNS = 10; // a second

    private static byte[][] full;

    private Ballast() {
    }

    private static void write(int kibPerSecond) {
        int pages = kibPerSecond * 1024 / PAGE / TURNS;
        for (int at = 0;;) {
            for (int i = 0; i < pages; i++, at++) {
                byte[] block = full[at / (MIB / PAGE) % full.length];
                block[at % (MIB / PAGE) * PAGE]++;
            }
            try {
                Thread.sleep(1000 / TURNS);
            } catch (InterruptedException e) {
                return;
            }
        }
    }

    public static void main(String[] args) throws Exception {
        SplittableRandom random = new SplittableRandom(1); // no page is like another, none is zeroes
        full = new byte[Integer.parseInt(args[0])][MIB];
        for (byte[] block : full) {
            random.nextBytes(block);
        }
        int dirty = Integer.parseInt(args[1]);
        if (dirty > 0 && full.length > 0) {
            Thread t = new Thread(() -> write(dirty), "dirty");
            t.setDaemon(true);
            t.start();
        }
        Class.forName(args[2]).getMethod("main", String[].class)
                .invoke(null, (Object) Arrays.copyOfRange(args, 3, args.length));
    }
}
