/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * First program of the clone's initramfs (rdinit=, Documentation/admin-guide/kernel-parameters.txt): moves the process
 * ids away from the workload's, then becomes the initramfs' own /init. The agent does the same as the real init, but
 * that is too late for kernel threads that the initramfs brings up (the root file system's), and those cannot be moved.
 * dom0 puts it in front of the guest's own initrd as a small cpio archive; see mkcpio.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#define KEY "xenmolt.pidbase="

static void put(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0 || write(fd, text, strlen(text)) < 0)
        perror(path);
    if (fd >= 0)
        close(fd);
}

static long pidbase(void)
{
    static char line[65536];
    int fd = open("/proc/cmdline", O_RDONLY | O_CLOEXEC);
    ssize_t n = fd >= 0 ? read(fd, line, sizeof(line) - 1) : -1;
    if (fd >= 0)
        close(fd);
    const char *at = n > 0 ? strstr(line, KEY) : NULL;
    return at ? strtol(at + strlen(KEY), NULL, 10) : 0;
}

int main(int argc, char **argv)
{
    char text[24];
    (void)argc;
    unlink(argv[0]); /* it would only take memory */
    mkdir("/proc", 0555);
    if (mount("proc", "/proc", "proc", MS_NOSUID | MS_NOEXEC | MS_NODEV, NULL) == 0) {
        long base = pidbase();
        if (base > 0 && base < 4194304) {
            snprintf(text, sizeof(text), "%ld", base);
            put("/proc/sys/kernel/pid_max", "4194304");
            put("/proc/sys/kernel/ns_last_pid", text);
        }
        umount("/proc");
    }
    argv[0] = (char[]){"/init"};
    execv("/init", argv);
    perror("/init");
    return 1;
}
