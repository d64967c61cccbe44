XENSTORE_SOURCES = \
	xenstore/identity.c xenstore/identity.h \
	xenstore/store.c xenstore/store.h
