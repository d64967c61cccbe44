# SPDX-License-Identifier: LGPL-2.1-or-later
MERGE_SOURCES = \
	src/merge/apply.c src/merge/apply.h src/merge/apply_fs.c src/merge/apply_fs.h src/merge/apply_want.c \
	src/merge/debversion.c src/merge/debversion.h src/merge/dpkg.c src/merge/fileset.c src/merge/fileset.h \
	src/merge/manifest.c src/merge/manifest.h \
	src/merge/manifest_wire.c src/merge/merge.c src/merge/merge.h src/merge/merges.c src/merge/merges.h src/merge/pack.c src/merge/pack.h \
	src/merge/packages.c src/merge/packages.h \
	src/merge/pathset.c src/merge/pathset.h src/merge/sparse.c src/merge/sparse.h src/merge/sparse_internal.h \
	src/merge/sparse_whole.c src/merge/plan.c src/merge/plan.h src/merge/plan_diff.c src/merge/plan_internal.h \
	src/merge/policy.c src/merge/policy.h src/merge/record.c src/merge/record.h src/merge/record_events.c \
	src/merge/record_extra.c src/merge/record_follow.c src/merge/record_internal.h src/merge/record_loop.c \
	src/merge/report.c src/merge/report.h src/merge/report_diff.c src/merge/scan.c src/merge/serve.c src/merge/textmerge.c \
	src/merge/wire.c src/merge/wire.h

# The policies that are built in, as C strings; include path -I$(top_builddir)/src.
POLICY_INC = src/merge/policy_debian.inc src/merge/policy_rpm.inc
$(POLICY_INC): src/merge/policy_%.inc: $(srcdir)/data/policy/%.policy
	@$(MKDIR_P) src/merge
	$(AM_V_GEN)sed -e 's/\\/\\\\/g' -e 's/"/\\"/g' -e 's/^/"/' -e 's/$$/\\n"/' $< > $@.tmp && mv $@.tmp $@
src/merge/policy.lo: $(POLICY_INC)
BUILT_SOURCES += $(POLICY_INC)
CLEANFILES += $(POLICY_INC)
