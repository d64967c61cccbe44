AGENT_SOURCES = \
	src/agent/address.c src/agent/address.h src/agent/agent.h src/agent/announce.c src/agent/arrival.c src/agent/bootfiles.c src/agent/clonerecord.c \
	src/agent/clonerecord.h src/agent/departure.c src/agent/disks.c src/agent/fileset.c src/agent/folders.c src/agent/folders.h src/agent/follow.c src/agent/follow.h src/agent/fsfreeze.c src/agent/hookcall.c src/agent/hooks.c src/agent/hooks.h src/agent/images.c src/agent/info.c \
	src/agent/init.c src/agent/main.c src/agent/mergeside.c src/agent/mounts.c src/agent/mounts.h src/agent/net.c src/agent/osinfo.c \
	src/agent/overlays.c src/agent/overlays.h src/agent/peer.c src/agent/peer.h src/agent/peer_client.c src/agent/predump.c src/agent/recipe.c src/agent/rehearsal.c src/agent/record.c \
	src/agent/session.c src/agent/supervisor.c src/agent/trees.c src/agent/trees.h src/agent/units.c src/agent/units.h src/agent/volumes.c src/agent/warm.c src/agent/warm.h
