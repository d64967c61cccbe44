/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The private mounts that show a moved process its pins at their old paths. */
#ifndef MOLT_PROCMIG_OVERLAY_H
#define MOLT_PROCMIG_OVERLAY_H

#include "procmig/pins.h"

#define MOLT_OVERLAYS_DIR "/var/lib/xenmolt/overlays"

struct molt_overlay_entry {
    char *path, *pin; /* pin is the file shown at path */
    bool placeholder; /* path did not exist: an empty file (and dirs) were made for the mount */
    char *made_dir;   /* topmost directory made for the placeholder, or NULL */
    char *owner;      /* "libc6 2.36-9": what the pin is of, or NULL */
};
struct molt_overlay {
    char *unit, *pin_dir;
    int64_t made_s; /* when, since the epoch; 0: not known */
    struct molt_overlay_entry *v;
    size_t n, cap;
};

/* The overlay for those pins that are needed (need != MOLT_PIN_SAME). */
struct molt_overlay *molt_overlay_new(const char *unit, const char *pin_dir, const struct molt_pins *p);
void molt_overlay_free(struct molt_overlay *o);
static inline void molt__cleanup_overlay(struct molt_overlay **o)
{
    molt_overlay_free(*o);
}
#define CLEANUP_OVERLAY __attribute__((cleanup(molt__cleanup_overlay)))
struct molt_json *molt_overlay_json(const struct molt_overlay *o);
int molt_overlay_parse(const struct molt_json *v, struct molt_overlay **ret_o, struct molt_error **err);
/* MOLT_OVERLAYS_DIR/UNIT.json; load fails with MOLT_E_STATE when there is none. */
int molt_overlay_save(const struct molt_overlay *o, struct molt_error **err);
int molt_overlay_load(const char *unit, struct molt_overlay **ret_o, struct molt_error **err);
/* Makes the placeholders (marks them in o; save o before and after). Idempotent. */
int molt_overlay_placeholders(struct molt_overlay *o, struct molt_error **err);
/* The units that have a manifest: a malloc'd array of malloc'd names. */
int molt_overlay_units(char ***ret_v, size_t *ret_n, struct molt_error **err);
/* Whether any process of the unit stands in a mount namespace of its own, as one with an overlay does. */
bool molt_overlay_in_use(const char *unit);
/* In the calling process: new mount namespace (slave of the old one) and the read-only bind mounts. */
int molt_overlay_enter(const struct molt_overlay *o, struct molt_error **err);
/* Removes placeholders that are still empty, the pin directory and the saved manifest. For when no process
 * uses the overlay any more, or the restore was given up. A missing manifest is success. */
int molt_overlay_remove(const char *unit, struct molt_error **err);

#endif
