"""The command lines of equo: packages are installed from repositories, with those that they need."""
import argparse
import os
import shutil
import urllib.request

import portage
from portage.versions import cpv_getversion, vercmp

from . import command, index, package, place, resolve
from . import merge as merging
from .place import Failed


def fetch(address, to):
    """Download a file, whole or not at all."""
    os.makedirs(os.path.dirname(to), exist_ok=True)
    try:
        with urllib.request.urlopen(address) as answer, open(to + ".part", "wb") as file:
            shutil.copyfileobj(answer, file)
    except OSError as error:
        raise Failed(f"downloading {address}: {error}") from error
    os.replace(to + ".part", to)


def recorded():
    """Return the installed packages that the list has."""
    try:
        return set(open(place.INSTALLED, encoding="utf-8").read().split())
    except FileNotFoundError as error:
        raise Failed("the list of installed packages is missing: run equo rescue generate") from error


def record(packages):
    """Write the list of installed packages."""
    os.makedirs(place.INDEXES, exist_ok=True)
    with open(place.INSTALLED, "w", encoding="utf-8") as file:
        file.write("".join(f"{cpv}\n" for cpv in sorted(packages)))


def generate(options):
    """Make the list of installed packages from Portage's."""
    for question in ("the list is made anew. Understood?", "Really?", "This is your last chance. Ok?"):
        if not options.force_non_interactive:
            place.ask(question)
    record(resolve.installed().cpv_all())


def spmsync(_options):
    """Add and remove what Portage has installed and removed since."""
    before, now = recorded(), set(resolve.installed().cpv_all())
    for cpv in sorted(before ^ now):
        print(f"{'added' if cpv in now else 'removed'} {cpv}")
    record(now)


def update(_options):
    """Fetch the indexes of the repositories."""
    for name, (uri, _) in place.of_client().items():
        to = f"{place.INDEXES}/{name}/{index.NAME}"
        fetch(f"{uri}/{name}/{index.SUM}", f"{to}.sum")
        fetch(f"{uri}/{name}/{index.NAME}", f"{to}.new")
        if package.digest(f"{to}.new")[1] != open(f"{to}.sum", encoding="utf-8").read().strip():
            raise Failed(f"the index of {name} is damaged: its SHA-256 is another one")
        os.replace(f"{to}.new", to)
        print(f"updated {name}")


def available():
    """Return the packages of all repositories. Of two of the same version, that of the first repository counts."""
    found = {}
    for name, (_, uri) in place.of_client().items():
        path = f"{place.INDEXES}/{name}/{index.NAME}"
        if not os.path.exists(path):
            raise Failed(f"the index of {name} is missing: run equo update")
        accepted = place.keywords(name)
        with index.opened(path) as database:
            for cpv, line in index.packages(database).items():
                if accepted & set(line["KEYWORDS"].split() or [""]):
                    found.setdefault(cpv, line | {"from": f"{uri}/{name}", "to": f"{place.PACKAGES}/{name}"})
    return found


def take(line):
    """Download a package, unless it is there, and check it. Return its path."""
    to = f"{line['to']}/{line['path']}"
    if not os.path.exists(to):
        fetch(f"{line['from']}/{line['path']}", to)
    if package.digest(to) != (line["size"], line["sha256"]):
        os.remove(to)
        raise Failed(f"the package {line['cpv']} is damaged: its size or SHA-256 is not that of the index")
    package.read(to)
    return to


def merge(order, lines):
    """Merge packages in this order. All are checked before the first one is merged."""
    recorded()
    files = [(cpv, take(lines[cpv])) for cpv in order]
    for cpv, file in files:
        merging.merge(cpv, file)
    record(resolve.installed().cpv_all())
    print(f"installed {', '.join(order) or 'nothing'}")


def install(options):
    """Install packages."""
    lines = available()
    order = resolve.Order(lines)
    for atom in options.packages:
        order.name(atom)
    if options.pretend:
        print("\n".join(order.order))
    else:
        merge(order.order, lines)


def upgrade(options):
    """Install the newer versions of installed packages."""
    lines = available()
    order, installed = resolve.Order(lines), resolve.installed()
    for cpv in sorted(recorded()):
        atom = f"{portage.cpv_getkey(cpv)}:{installed.aux_get(cpv, ['SLOT'])[0].split('/')[0]}"
        newest = portage.best(order.available.match(atom))
        if newest and vercmp(cpv_getversion(newest), cpv_getversion(cpv)) > 0:
            order.enter(str(newest))
    if options.pretend:
        print("\n".join(order.order))
    else:
        merge(order.order, lines)


def parser():
    """Return the parser of the command lines."""
    top = argparse.ArgumentParser("equo", description=__doc__, allow_abbrev=False)
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    flag = {"action": "store_true"}
    rescue = commands.add_parser("rescue", allow_abbrev=False).add_subparsers(required=True, metavar="COMMAND")
    command.add(rescue, "generate", generate, {"--force-non-interactive": flag})
    command.add(rescue, "spmsync", spmsync, {})
    command.add(commands, "update", update, {"--force": flag})
    command.add(commands, "upgrade", upgrade, {"--pretend": flag})
    command.add(commands, "install", install, {"packages": {"nargs": "+"}, "--pretend": flag})
    return top


def main():
    """Run a command of equo."""
    command.main(parser())
