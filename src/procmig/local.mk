# SPDX-License-Identifier: LGPL-2.1-or-later
# Process migration. Uses base only (and xxhash.h inlined).
PROCMIG_SOURCES = \
    src/procmig/bystanders.c src/procmig/bystanders.h \
    src/procmig/carry.c src/procmig/carry.h \
    src/procmig/rehearse.c src/procmig/rehearse.h src/procmig/check.c src/procmig/check.h src/procmig/check_internal.h src/procmig/check_tcp.c \
    src/procmig/criu.c src/procmig/criu.h \
    src/procmig/datagrams.c src/procmig/datagrams.h src/procmig/depart.c src/procmig/dump.c src/procmig/dump.h \
    src/procmig/early.c src/procmig/early.h src/procmig/execs.c src/procmig/execs.h src/procmig/firststep.c src/procmig/firststep.h src/procmig/gate.c src/procmig/gate.h src/procmig/image.c src/procmig/image.h src/procmig/inetdiag.c src/procmig/inetdiag.h src/procmig/lazy.c src/procmig/lazy.h src/procmig/memory.c src/procmig/memory.h src/procmig/pointed.c src/procmig/pointed.h src/procmig/pagefiles.c src/procmig/pagefiles.h src/procmig/neighbours.c src/procmig/neighbours.h \
    src/procmig/pager.c src/procmig/pager.h src/procmig/pager_serve.c src/procmig/pager_serve.h src/procmig/uffd.c src/procmig/uffd.h \
    src/procmig/owners.c src/procmig/owners.h \
    src/procmig/overlay.c src/procmig/overlay.h \
    src/procmig/buildid.c src/procmig/buildid.h src/procmig/pb.c src/procmig/pb.h \
    src/procmig/pins.c src/procmig/pins.h src/procmig/touched.c src/procmig/touched.h \
    src/procmig/predump.c src/procmig/predump.h \
    src/procmig/procfs.c src/procmig/procfs.h \
    src/procmig/residue.c src/procmig/residue.h src/procmig/restore.c src/procmig/restore.h \
    src/procmig/restore_exec.c src/procmig/restore_internal.h \
    src/procmig/settle.c src/procmig/settle.h src/procmig/sockfiles.c src/procmig/sockfiles.h src/procmig/standins.c src/procmig/standins.h src/procmig/stats.c \
    src/procmig/tcpclock.c src/procmig/tcpclock.h src/procmig/tcpwarm.c src/procmig/tcpwarm.h src/procmig/turns.c src/procmig/turns.h \
    src/procmig/worker.c src/procmig/worker.h \
    src/procmig/workload.c src/procmig/workload.h
