PROTO_SOURCES = \
	src/proto/chan.c src/proto/chan.h \
	src/proto/msg.c src/proto/msg.h \
	src/proto/resolve.c src/proto/resolve.h
VCHAN_SOURCES = \
	src/proto/vchan.c src/proto/vchan.h
