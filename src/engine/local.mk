ENGINE_SOURCES = \
	src/engine/engine.h src/engine/internal.h \
	src/engine/control.c src/engine/control.h \
	src/engine/journal.c \
	src/engine/lock.c \
	src/engine/operation.c \
	src/engine/recover.c \
	src/engine/runner.c \
	src/engine/store.c \
	src/engine/view.c
# also needs BASE_SOURCES, -lz
