MAN_PODS = docs/man/xenmolt.8.pod docs/man/xenmolt-guest-upgrade.8.pod docs/man/xenmolt-op.8.pod \
	docs/man/xenmolt-delta-merge.8.pod docs/man/xenmolt-report.7.pod docs/man/xenmolt-recipe.7.pod docs/man/xenmolt-policy.5.pod \
	docs/man/xenmolt-agent.8.pod docs/man/xenmolt-app.8.pod
if HAVE_POD2MAN
man_MANS = $(MAN_PODS:.pod=)
CLEANFILES += $(man_MANS)
.pod:
	$(AM_V_GEN)$(MKDIR_P) $(@D) && n=$$(basename $@) && s=$${n##*.} && \
		$(POD2MAN) --section=$$s --name=$$(echo $${n%.*} | tr a-z A-Z) --center=xenmolt --release=$(PACKAGE_VERSION) $< $@
SUFFIXES = .pod
endif
