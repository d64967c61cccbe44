BASE_SOURCES = \
	src/base/cleanup.h \
	src/base/clock.c src/base/clock.h \
	src/base/error.c src/base/error.h \
	src/base/fault.c src/base/fault.h \
	src/base/fsio.c src/base/fsio.h \
	src/base/json.c src/base/json.h src/base/json_text.c \
	src/base/load.c src/base/load.h \
	src/base/log.c src/base/log.h \
	src/base/strbuf.c src/base/strbuf.h \
	src/base/rtreq.c src/base/rtreq.h \
	src/base/subprocess.c src/base/subprocess.h
