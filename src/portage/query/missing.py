# Prints those of the atoms given that no package in ROOT matches, one in a line. Packages of the atoms after `--` may be missing.

import sys

import portage


def name(atom):
    try:
        return portage.dep.dep_getkey(atom)
    except portage.exception.InvalidAtom:
        return atom


words = sys.argv[1:]
end = words.index("--") if "--" in words else len(words)
unmerged = {name(atom) for atom in words[end + 1 :]}
installed = portage.db[portage.settings["EROOT"]]["vartree"].dbapi
for atom in words[:end]:
    if name(atom) not in unmerged and not installed.match(atom):
        print(atom)
