# One program a file; each links only the layers that it tests.
if HAVE_CMOCKA
UNIT_TESTS =
UNIT_LIBS = $(CMOCKA_LIBS) $(ZLIB_LIBS) $(YAJL_LIBS) -lpthread

UNIT_TESTS += tests/unit/test_engine
tests_unit_test_engine_SOURCES = tests/unit/test_engine.c
tests_unit_test_engine_LDADD = libmoltengine.la libmoltbase.la $(UNIT_LIBS)

UNIT_TESTS += tests/crash/crash_engine
tests_crash_crash_engine_SOURCES = tests/crash/crash_engine.c
tests_crash_crash_engine_LDADD = libmoltengine.la libmoltbase.la $(UNIT_LIBS)

UNIT_TESTS += tests/unit/test_load
tests_unit_test_load_SOURCES = tests/unit/test_load.c
tests_unit_test_load_LDADD = libmoltbase.la $(UNIT_LIBS)

UNIT_TESTS += tests/unit/test_rtreq
tests_unit_test_rtreq_SOURCES = tests/unit/test_rtreq.c
tests_unit_test_rtreq_LDADD = libmoltbase.la $(UNIT_LIBS)

UNIT_TESTS += tests/unit/test_neighbours
tests_unit_test_neighbours_SOURCES = tests/unit/test_neighbours.c
tests_unit_test_neighbours_LDADD = libmoltprocmig.la libmoltbase.la $(UNIT_LIBS)

UNIT_TESTS += tests/unit/test_datagrams
tests_unit_test_datagrams_SOURCES = tests/unit/test_datagrams.c tests/unit/lonely_net.h tests/unit/own_dir.h
tests_unit_test_datagrams_LDADD = libmoltprocmig.la libmoltbase.la $(UNIT_LIBS)

UNIT_TESTS += tests/unit/test_firststep
tests_unit_test_firststep_SOURCES = tests/unit/test_firststep.c
tests_unit_test_firststep_LDADD = libmoltprocmig.la libmoltbase.la $(UNIT_LIBS)

UNIT_TESTS += tests/unit/test_sockfiles
tests_unit_test_sockfiles_SOURCES = tests/unit/test_sockfiles.c tests/unit/own_dir.h
tests_unit_test_sockfiles_LDADD = libmoltprocmig.la libmoltbase.la $(UNIT_LIBS)
UNIT_TESTS += tests/unit/test_procmig tests/unit/test_procmig_pins
tests_unit_test_procmig_SOURCES = tests/unit/test_procmig.c
tests_unit_test_procmig_LDADD = libmoltprocmig.la libmoltbase.la $(UNIT_LIBS)
tests_unit_test_procmig_pins_SOURCES = tests/unit/test_procmig_pins.c
tests_unit_test_procmig_pins_LDADD = libmoltprocmig.la libmoltbase.la $(UNIT_LIBS)

UNIT_TESTS += tests/unit/test_tcpwarm
tests_unit_test_tcpwarm_SOURCES = tests/unit/test_tcpwarm.c
tests_unit_test_tcpwarm_LDADD = libmoltprocmig.la libmoltbase.la $(UNIT_LIBS)
UNIT_TESTS += tests/unit/test_turns
tests_unit_test_turns_SOURCES = tests/unit/test_turns.c
tests_unit_test_turns_LDADD = libmoltprocmig.la libmoltbase.la $(UNIT_LIBS)
UNIT_TESTS += tests/unit/test_touched
tests_unit_test_touched_SOURCES = tests/unit/test_touched.c
tests_unit_test_touched_LDADD = libmoltprocmig.la libmoltbase.la $(UNIT_LIBS)

UNIT_TESTS += tests/unit/test_standins
tests_unit_test_standins_SOURCES = tests/unit/test_standins.c
tests_unit_test_standins_LDADD = libmoltprocmig.la libmoltbase.la $(UNIT_LIBS)

UNIT_TESTS += tests/unit/test_owners
tests_unit_test_owners_SOURCES = tests/unit/test_owners.c
tests_unit_test_owners_LDADD = libmoltprocmig.la libmoltbase.la $(UNIT_LIBS)

UNIT_TESTS += tests/unit/test_bystanders
tests_unit_test_bystanders_SOURCES = tests/unit/test_bystanders.c
tests_unit_test_bystanders_LDADD = libmoltprocmig.la libmoltbase.la $(UNIT_LIBS)

UNIT_TESTS += tests/unit/test_predump
tests_unit_test_predump_SOURCES = tests/unit/test_predump.c
tests_unit_test_predump_LDADD = libmoltprocmig.la libmoltbase.la $(UNIT_LIBS)

UNIT_TESTS += tests/unit/test_early tests/unit/test_lazy tests/unit/test_pager tests/unit/test_pointed
tests_unit_test_pointed_SOURCES = tests/unit/test_pointed.c
tests_unit_test_pointed_LDADD = libmoltprocmig.la libmoltbase.la $(UNIT_LIBS)
tests_unit_test_early_SOURCES = tests/unit/test_early.c tests/unit/lazy_util.h
tests_unit_test_early_LDADD = libmoltprocmig.la libmoltbase.la $(UNIT_LIBS)
tests_unit_test_lazy_SOURCES = tests/unit/test_lazy.c tests/unit/lazy_util.h
tests_unit_test_lazy_LDADD = libmoltprocmig.la libmoltbase.la $(UNIT_LIBS)
tests_unit_test_pager_SOURCES = tests/unit/test_pager.c tests/unit/lazy_util.h
tests_unit_test_pager_LDADD = libmoltprocmig.la libmoltbase.la $(UNIT_LIBS)

UNIT_TESTS += tests/unit/test_fileset
tests_unit_test_fileset_SOURCES = tests/unit/test_fileset.c
tests_unit_test_fileset_LDADD = libmoltmerge.la libmoltprocmig.la libmoltbase.la $(UNIT_LIBS)

UNIT_TESTS += tests/unit/test_hooks
tests_unit_test_hooks_SOURCES = tests/unit/test_hooks.c src/agent/hooks.c
tests_unit_test_hooks_LDADD = libmoltbase.la $(UNIT_LIBS)

UNIT_TESTS += tests/unit/test_images
tests_unit_test_images_SOURCES = tests/unit/test_images.c src/agent/follow.c src/agent/images.c
tests_unit_test_images_LDADD = libmoltprocmig.la libmoltproto.la libmoltbase.la $(UNIT_LIBS)

UNIT_TESTS += tests/unit/test_worker
tests_unit_test_worker_SOURCES = tests/unit/test_worker.c
tests_unit_test_worker_LDADD = libmoltprocmig.la libmoltbase.la $(UNIT_LIBS)

UNIT_TESTS += tests/unit/test_merge_plan
tests_unit_test_merge_plan_SOURCES = tests/unit/test_merge_plan.c tests/unit/test_merge_util.h
tests_unit_test_merge_plan_LDADD = libmoltmerge.la libmoltbase.la $(UNIT_LIBS)

UNIT_TESTS += tests/unit/test_merge_policy
tests_unit_test_merge_policy_SOURCES = tests/unit/test_merge_policy.c tests/unit/test_merge_util.h
tests_unit_test_merge_policy_LDADD = libmoltmerge.la libmoltbase.la $(UNIT_LIBS)

UNIT_TESTS += tests/unit/test_merge_differences
tests_unit_test_merge_differences_SOURCES = tests/unit/test_merge_differences.c tests/unit/test_merge_util.h
tests_unit_test_merge_differences_LDADD = libmoltmerge.la libmoltbase.la $(UNIT_LIBS)
UNIT_TESTS += tests/unit/test_merge_tree
tests_unit_test_merge_tree_SOURCES = tests/unit/test_merge_tree.c tests/unit/test_merge_util.h
tests_unit_test_merge_tree_LDADD = libmoltmerge.la libmoltbase.la $(UNIT_LIBS)

UNIT_TESTS += tests/unit/test_merge_corner
tests_unit_test_merge_corner_SOURCES = tests/unit/test_merge_corner.c tests/unit/test_merge_util.h
tests_unit_test_merge_corner_LDADD = libmoltmerge.la libmoltbase.la $(UNIT_LIBS)

UNIT_TESTS += tests/unit/test_merge_hostile
tests_unit_test_merge_hostile_SOURCES = tests/unit/test_merge_hostile.c tests/unit/test_merge_util.h
tests_unit_test_merge_hostile_LDADD = libmoltmerge.la libmoltbase.la $(UNIT_LIBS)

UNIT_TESTS += tests/unit/test_merge_random
tests_unit_test_merge_random_SOURCES = tests/unit/test_merge_random.c tests/unit/test_merge_util.h
tests_unit_test_merge_random_LDADD = libmoltmerge.la libmoltbase.la $(UNIT_LIBS)

# The reference model: a share of it in each run; `tests/run model` for long.
UNIT_TESTS += tests/model/merge_model
tests_model_merge_model_SOURCES = tests/model/main.c tests/model/world.c tests/model/world.h tests/model/ops.c \
	tests/model/ops_run.c tests/model/tree.c tests/model/expect.c tests/model/compare.c tests/model/model.h
tests_model_merge_model_CPPFLAGS = $(AM_CPPFLAGS) -I$(top_srcdir)/tests/model
tests_model_merge_model_LDADD = libmoltmerge.la libmoltbase.la $(UNIT_LIBS)

HOLD_NET = tests/unit/hold_net.c tests/unit/hold_net.h libxl-ext/hold.c libxl-ext/hold.h libxl-ext/hold_internal.h libxl-ext/rtnl.c libxl-ext/rtnl.h
UNIT_TESTS += tests/unit/test_hold
tests_unit_test_hold_SOURCES = tests/unit/test_hold.c $(HOLD_NET)
tests_unit_test_hold_CFLAGS = $(AM_CFLAGS) $(LIBNL_CFLAGS)
tests_unit_test_hold_LDADD = libmoltbase.la $(LIBNL_LIBS) $(UNIT_LIBS)

UNIT_TESTS += tests/unit/test_divert
tests_unit_test_divert_SOURCES = tests/unit/test_divert.c libxl-ext/divert.c libxl-ext/divert.h $(HOLD_NET)
tests_unit_test_divert_CFLAGS = $(AM_CFLAGS) $(LIBNL_CFLAGS)
tests_unit_test_divert_LDADD = libmoltbase.la $(LIBNL_LIBS) $(UNIT_LIBS)

UNIT_TESTS += tests/unit/test_requests
tests_unit_test_requests_SOURCES = tests/unit/test_requests.c libxl-ext/divert.c libxl-ext/divert.h $(HOLD_NET)
tests_unit_test_requests_CFLAGS = $(AM_CFLAGS) $(LIBNL_CFLAGS)
tests_unit_test_requests_LDADD = libmoltbase.la $(LIBNL_LIBS) $(UNIT_LIBS)

UNIT_TESTS += tests/unit/test_cpupolicy
tests_unit_test_cpupolicy_SOURCES = tests/unit/test_cpupolicy.c libxl-ext/cpupolicy.c libxl-ext/cpupolicy.h
tests_unit_test_cpupolicy_LDADD = libmoltbase.la $(XENGUEST_LIBS) $(UNIT_LIBS)

UNIT_TESTS += tests/unit/test_settle
tests_unit_test_settle_SOURCES = tests/unit/test_settle.c tests/unit/lonely_net.h
tests_unit_test_settle_LDADD = libmoltprocmig.la libmoltbase.la $(UNIT_LIBS)

UNIT_TESTS += tests/unit/test_disk
tests_unit_test_disk_SOURCES = tests/unit/test_disk.c libxl-ext/disk.c libxl-ext/disk.h libxl-ext/domain.c libxl-ext/domain.h \
	libxl-ext/lvm.c libxl-ext/lvm.h \
	libxl-ext/qmp.c libxl-ext/qmp.h libxl-ext/vdev.c
tests_unit_test_disk_LDADD = libmoltxenstore.la libmoltbase.la $(XENLIGHT_LIBS) $(XENSTORE_LIBS) $(XENTOOLLOG_LIBS) $(UNIT_LIBS)

UNIT_TESTS += tests/unit/test_lvm
tests_unit_test_lvm_SOURCES = tests/unit/test_lvm.c libxl-ext/lvm.c libxl-ext/lvm.h
tests_unit_test_lvm_LDADD = libmoltbase.la $(UNIT_LIBS)

UNIT_TESTS += tests/unit/test_diskplan
tests_unit_test_diskplan_SOURCES = tests/unit/test_diskplan.c libxl-ext/diskplan.c libxl-ext/diskplan.h libxl-ext/vdev.c libxl-ext/disk.h
tests_unit_test_diskplan_LDADD = libmoltbase.la $(UNIT_LIBS)

UNIT_TESTS += tests/unit/test_vdev
tests_unit_test_vdev_SOURCES = tests/unit/test_vdev.c libxl-ext/vdev.c libxl-ext/disk.h
tests_unit_test_vdev_LDADD = libmoltbase.la $(UNIT_LIBS)

UNIT_TESTS += tests/unit/test_merge_record
tests_unit_test_merge_record_SOURCES = tests/unit/test_merge_record.c tests/unit/test_merge_record.h tests/unit/test_merge_util.h
tests_unit_test_merge_record_LDADD = libmoltmerge.la libmoltbase.la $(UNIT_LIBS)

UNIT_TESTS += tests/unit/test_merge_record_random
tests_unit_test_merge_record_random_SOURCES = tests/unit/test_merge_record_random.c tests/unit/test_merge_record.h \
	tests/unit/test_merge_util.h
tests_unit_test_merge_record_random_LDADD = libmoltmerge.la libmoltbase.la $(UNIT_LIBS)

UNIT_TESTS += tests/unit/test_resolve
tests_unit_test_resolve_SOURCES = tests/unit/test_resolve.c
tests_unit_test_resolve_LDADD = libmoltproto.la libmoltbase.la $(UNIT_LIBS)

UNIT_TESTS += tests/unit/test_merge_report
tests_unit_test_merge_report_SOURCES = tests/unit/test_merge_report.c tests/unit/test_merge_util.h
tests_unit_test_merge_report_LDADD = libmoltmerge.la libmoltbase.la $(UNIT_LIBS)

UNIT_TESTS += tests/unit/test_merges
tests_unit_test_merges_SOURCES = tests/unit/test_merges.c tests/unit/test_merge_util.h
tests_unit_test_merges_LDADD = libmoltmerge.la libmoltbase.la $(UNIT_LIBS)

UNIT_TESTS += tests/unit/test_control
tests_unit_test_control_SOURCES = tests/unit/test_control.c
tests_unit_test_control_LDADD = libmoltengine.la libmoltbase.la $(UNIT_LIBS)
# What tests/bench/merge measures with; not a test.
check_PROGRAMS += tests/bench/mergebench
tests_bench_mergebench_SOURCES = tests/bench/mergebench.c
tests_bench_mergebench_LDADD = libmoltmerge.la libmoltbase.la $(ZLIB_LIBS) $(YAJL_LIBS) -lpthread

UNIT_TESTS += tests/unit/test_msg
tests_unit_test_msg_SOURCES = tests/unit/test_msg.c
tests_unit_test_msg_LDADD = libmoltproto.la libmoltbase.la $(UNIT_LIBS)

UNIT_TESTS += tests/unit/test_wait
tests_unit_test_wait_SOURCES = tests/unit/test_wait.c tests/unit/test_merge_util.h libxl-ext/upgrade_wait.c libxl-ext/upgrade.h
tests_unit_test_wait_LDADD = libmoltmerge.la libmoltengine.la libmoltproto.la libmoltbase.la $(UNIT_LIBS)

check_PROGRAMS += $(UNIT_TESTS)
TESTS += $(UNIT_TESTS)
endif

SHELL_TESTS = tests/shell/cli.sh tests/shell/shim.sh tests/shell/man.sh tests/shell/arrows.sh tests/shell/header.sh \
	tests/shell/symbols.sh tests/shell/xfs.sh
TESTS += $(SHELL_TESTS)
TEST_EXTENSIONS = .sh
AM_TESTS_ENVIRONMENT = top_srcdir=$(abs_top_srcdir) top_builddir=$(abs_top_builddir); export top_srcdir top_builddir;
