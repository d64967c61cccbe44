LIBXLEXT_SOURCES = \
	libxl-ext/apps.c libxl-ext/apps.h \
	libxl-ext/checks.c libxl-ext/checks.h \
	libxl-ext/context.c libxl-ext/context.h \
	libxl-ext/cpupolicy.c libxl-ext/cpupolicy.h \
	libxl-ext/disk.c libxl-ext/disk.h \
	libxl-ext/diskplan.c libxl-ext/diskplan.h \
	libxl-ext/domain.c libxl-ext/domain.h \
	libxl-ext/guard.c libxl-ext/guard.h \
	libxl-ext/guest.c libxl-ext/guest.h \
	libxl-ext/hold.c libxl-ext/hold.h libxl-ext/hold_internal.h libxl-ext/divert.c libxl-ext/divert.h \
	libxl-ext/lvm.c libxl-ext/lvm.h \
	libxl-ext/migrate.c libxl-ext/migrate.h libxl-ext/migrate_hold.c libxl-ext/migrate_preflight.c \
	libxl-ext/monitor.c \
	libxl-ext/net.c libxl-ext/net.h \
	libxl-ext/operations.c \
	libxl-ext/preflight.c \
	libxl-ext/qmp.c libxl-ext/qmp.h \
	libxl-ext/recipe.c \
	libxl-ext/report.c \
	libxl-ext/rtnl.c libxl-ext/rtnl.h \
	libxl-ext/upgrade.c libxl-ext/upgrade.h \
	libxl-ext/upgrade_boot.c \
	libxl-ext/upgrade_clone.c \
	libxl-ext/upgrade_disks.c \
	libxl-ext/upgrade_fold.c \
	libxl-ext/upgrade_lvm.c \
	libxl-ext/upgrade_move.c \
	libxl-ext/upgrade_predump.c libxl-ext/upgrade_rehearse.c \
	libxl-ext/upgrade_settle.c libxl-ext/upgrade_switch.c \
	libxl-ext/upgrade_volumes.c \
	libxl-ext/vdev.c \
	libxl-ext/upgrade_wait.c \
	libxl-ext/xlcfg.c
