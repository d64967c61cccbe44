#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""treemodel BASE ACTIVE UPGRADE MERGED [GONE...]: lists of treelist; GONE: what the upgrade removed after its list was made. The merged tree must be what a plain three-way rule makes of the
other three: a path that one side changed is that side's, whole. Paths that both changed, differently, are listed, one
"both PATH" a line, for the caller knows what they must be. Exit status 1 with the differences where there are any."""
import sys

FIELDS = "type ino mode uid gid mtime size rdev flags kib hash xattrs".split()
STRONG = "type mode uid gid size rdev flags hash xattrs".split()
DIRECTORY = "4"


def read(name):
    tree = {}
    with open(name, encoding="ascii") as f:
        for line in f:
            path, *rest = line.rstrip("\n").split("\t")
            tree[path] = dict(zip(FIELDS, rest))
    names = {}
    for path, e in tree.items():
        if e["type"] != DIRECTORY:
            names.setdefault(e["ino"], []).append(path)
    for path, e in tree.items():
        e["links"] = sorted(names.get(e["ino"], [path])) if e["type"] != DIRECTORY else [path]
    return tree


def strong(x, y):
    return [k for k in STRONG if x[k] != y[k]] if x and y else ["there"] * (x is not y)


def expected(b, a, u):
    """(entry or None, whether the time counts, whether both changed it)"""
    if strong(b, a) and strong(b, u):
        return (u, False, False) if not strong(a, u) else (None, False, True)
    directories = a and u and a["type"] == u["type"] == DIRECTORY
    if directories:
        e = dict(a if strong(b, a) else u)
        e["mtime"] = a["mtime"] if b and b["mtime"] == u["mtime"] else u["mtime"]
        return e, True, False
    if strong(b, a) or (a and (a["mtime"] != b["mtime"] or a["links"] != b["links"]) and not (u["mtime"] != b["mtime"])):
        return a, True, False
    return u, True, False


def main():
    base, active, upgrade, merged = (read(n) for n in sys.argv[1:5])
    touched = set()
    for path in sys.argv[5:]:
        upgrade.pop(path, None)
        touched.add(path.rpartition("/")[0])
    wrong = compared = 0
    for path in sorted(set(base) | set(active) | set(upgrade) | set(merged)):
        b, a, u, m = base.get(path), active.get(path), upgrade.get(path), merged.get(path)
        want, times, both = expected(b, a, u)
        if both:
            print("both", path)
            continue
        compared += 1
        bad = strong(want, m)
        if want and m and not bad:
            if times and path not in touched and want["mtime"] != m["mtime"]:
                bad.append("mtime")
            if want is a and want["links"] != m["links"]:
                bad.append("links")
            if int(m["kib"]) > int(want["kib"]) + 64 and want["type"] != DIRECTORY:
                bad.append("kib")
        if bad:
            wrong += 1
            if wrong <= 40:
                def show(e): return {k: e[k] for k in bad if k in e} if e else None
                print("wrong", path, bad, "is", show(m), "not", show(want),
                      "| base", show(b), "active", show(a), "upgrade", show(u))
    print(f"{compared} paths compared, {wrong} wrong")
    return 1 if wrong or compared < 10000 else 0


sys.exit(main())
