# Prints those of the atoms given that no package in ROOT matches, one in a line.

import sys

import portage

installed = portage.db[portage.settings["EROOT"]]["vartree"].dbapi
for atom in sys.argv[1:]:
    if not installed.match(atom):
        print(atom)
