"""The index of a repository: its packages, with their digests and their dependencies."""
import contextlib
import os
import sqlite3

from portage.dep import paren_enclose, use_reduce

NAME = "index.sqlite"
SUM = NAME + ".sha256"
# What Portage needs to compare a package with an atom, and the dependencies.
METADATA = ("EAPI", "IUSE", "KEYWORDS", "PDEPEND", "RDEPEND", "SLOT", "USE", "repository")
COLUMNS = ("cpv", "path", "size", "sha256", *METADATA)


@contextlib.contextmanager
def opened(path, new=False):
    """Open the index at a path, and commit the changes if nothing goes wrong."""
    if new != (not os.path.exists(path)):
        raise OSError(f"{path} {'is there already' if new else 'is missing'}")
    database = sqlite3.connect(path)
    try:
        with database:
            if new:
                database.execute(f"CREATE TABLE package ({', '.join(COLUMNS)}, PRIMARY KEY (cpv))")
            yield database
    finally:
        database.close()


def row(values, path, size, sha256):
    """Return the line of a package. Its dependencies are those that its USE flags leave."""
    line = {name: values.get(name, "") for name in METADATA}
    for name in ("RDEPEND", "PDEPEND"):
        reduced = use_reduce(line[name], uselist=line["USE"].split(), eapi=line["EAPI"], opconvert=False)
        line[name] = paren_enclose(reduced)
    return line | {"cpv": f"{values['CATEGORY']}/{values['PF']}", "path": path, "size": size, "sha256": sha256}


def put(database, line):
    """Add a package to the index, in place of another one of the same version."""
    marks = ", ".join("?" * len(COLUMNS))
    database.execute(f"INSERT OR REPLACE INTO package VALUES ({marks})", [line[name] for name in COLUMNS])


def packages(database):
    """Return the packages by name and version."""
    lines = database.execute(f"SELECT {', '.join(COLUMNS)} FROM package ORDER BY cpv")
    return {line[0]: dict(zip(COLUMNS, line)) for line in lines}
