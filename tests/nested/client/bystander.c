/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * bystander FILE: a process in the guest that is not the workload. Appends the next number to FILE, then tells it to dom0
 * (data/bystander in xenstore), and so on. A number that dom0 knows and FILE does not have is a lost write.
 */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <xenstore.h>

int main(int argc, char **argv)
{
    int fd = argc == 2 ? open(argv[1], O_WRONLY | O_CREAT | O_TRUNC | O_APPEND, 0644) : -1;
    struct xs_handle *xs = xs_open(0);
    char text[24];
    if (fd < 0 || !xs) {
        perror("bystander");
        return 1;
    }
    for (unsigned i = 1;; i++) {
        int n = snprintf(text, sizeof(text), "%u\n", i);
        if (write(fd, text, (size_t)n) != n || !xs_write(xs, XBT_NULL, "data/bystander", text, (unsigned)n - 1)) {
            perror("bystander");
            return 1;
        }
        usleep(2000);
    }
}
