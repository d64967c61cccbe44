/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef MOLT_MERGE_DEBVERSION_H
#define MOLT_MERGE_DEBVERSION_H

/* Orders two versions of Debian packages as dpkg does ("[epoch:]upstream[-revision]"; deb-version(7), "Sorting algorithm"): below, equal to or
 * above 0. Any text can be compared. */
int molt_deb_version_compare(const char *a, const char *b);

#endif
