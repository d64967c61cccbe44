CLI_SOURCES = \
	src/cli/apps.c \
	src/cli/cli.h \
	src/cli/commands.c \
	src/cli/delta.c \
	src/cli/interrupt.c \
	src/cli/migrate.c \
	src/cli/run.c \
	src/cli/main.c \
	src/cli/ops.c \
	src/cli/progress.c \
	src/cli/shim.c \
	src/cli/summary.c \
	src/cli/upgrade.c
# also needs BASE_SOURCES, libxenmolt, -lpthread
