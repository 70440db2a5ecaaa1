"""The command lines of eit: packages are injected into a repository on this machine, which is then pushed to its address."""
import argparse
import os
import shutil
import sys

from . import command, index, package, place, resolve
from .place import Failed


def local(name):
    """Return the directory of the repository before it is pushed."""
    return f"{place.STATE}/server/{name}"


def initialised(name):
    """Return the path of the index of a repository that must have one."""
    path = os.path.join(local(name), index.NAME)
    if not os.path.exists(path):
        raise Failed(f"the repository {name} does not exist: run eit init {name}")
    return path


def init(options):
    """Make an empty repository. Like that of Entropy, it asks even with --quick."""
    name, _ = place.of_server(options.repo)
    place.ask(f"initialize the repository {name}, and lose what is in it?")
    shutil.rmtree(local(name), ignore_errors=True)
    os.makedirs(f"{local(name)}/packages")
    with index.opened(f"{local(name)}/{index.NAME}", new=True):
        pass


def unlock(options):
    """Let other programs change the repository. Nobody else does here."""
    name, _ = place.of_server(options.repo)
    initialised(name)


def inject(options):
    """Add packages. Each is checked before the first one is added."""
    name, _ = place.of_server(options.to)
    path = initialised(name)
    wrong = [file for file in options.packages if not file.endswith(package.SUFFIX)]
    if wrong:
        raise Failed(f"unsupported extension: {wrong[0]}; packages have the format xpak and the suffix {package.SUFFIX}")
    checked = [(file, package.read(file)) for file in options.packages]
    if not options.quick:
        place.ask(f"add {len(checked)} packages to {name}?")
    with index.opened(path) as database:
        for file, values in checked:
            below = f"packages/{values['CATEGORY']}/{values['PF']}{package.SUFFIX}"
            to = f"{local(name)}/{below}"
            os.makedirs(os.path.dirname(to), exist_ok=True)
            shutil.copyfile(file, to)
            line = index.row(values, below, *package.digest(to))
            index.put(database, line)
            print(f"injected {line['cpv']}")


def push(options):
    """Copy the repository to its address. The index comes last, so that a client finds every package in it."""
    name, to = place.of_server(options.repo)
    path = initialised(name)
    with index.opened(path) as database:
        lines = index.packages(database)
    missing = resolve.missing(lines)
    for atom, cpv in missing:
        print(f"warning: {cpv} needs {atom}, which is not in {name} and not installed", file=sys.stderr)
    if missing and not options.force:
        raise Failed("packages need others that are missing; --force pushes the repository nevertheless")
    if not options.quick:
        place.ask(f"push {name} to {to}?")
    shutil.copytree(f"{local(name)}/packages", f"{to}/{name}/packages", dirs_exist_ok=True)
    shutil.copyfile(path, f"{to}/{name}/{index.NAME}")
    with open(f"{to}/{name}/{index.SUM}", "w", encoding="utf-8") as file:
        file.write(package.digest(path)[1] + "\n")
    print(f"pushed {len(lines)} packages to {to}/{name}")


def parser():
    """Return the parser of the command lines."""
    top = argparse.ArgumentParser("eit", description=__doc__, allow_abbrev=False)
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    quick = {"--quick": {"action": "store_true", "help": "do not ask"}}
    command.add(commands, "init", init, {"repo": {}, **quick})
    command.add(commands, "unlock", unlock, {"repo": {}})
    command.add(commands, "inject", inject, {"packages": {"nargs": "+"}, "--to": {"metavar": "REPO"}, **quick})
    command.add(commands, "push", push, {"repo": {"nargs": "?"}, "--force": {"action": "store_true"}, **quick})
    return top


def main():
    """Run a command of eit."""
    command.main(parser())
