/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef MOLT_PROCMIG_TCPWARM_H
#define MOLT_PROCMIG_TCPWARM_H

/* Runs some segments through this kernel, from one process's socket to another and back, over the loopback device: a system that has just booted has not used that code
 * yet, and the first segments behind the thaw would wait for it (under emulation, which translates it then, some ten milliseconds). Takes some milliseconds, at most a
 * second where a firewall drops them; leaves no socket behind, not even one in TIME_WAIT. How many went there and back: 0 is no error. */
unsigned molt_tcp_warm(void);

#endif
