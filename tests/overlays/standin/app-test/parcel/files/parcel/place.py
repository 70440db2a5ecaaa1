"""Places in the tree, and the configuration: the files that Entropy reads, of which this tool takes the keys that it needs."""
import configparser
import glob
import os

CONFIG = "/etc/entropy"
STATE = "/var/lib/entropy"
# Files that `equo` downloads.
PACKAGES = f"{STATE}/client/packages"
# Indexes that `equo update` has fetched, and the list of installed packages.
INDEXES = f"{STATE}/client/database"
INSTALLED = f"{INDEXES}/installed"


class Failed(Exception):
    """A reason to stop, for the user."""


def ask(question):
    """Ask on standard input, until the answer is yes or no. Raises Failed at its end."""
    while True:
        print(f"{question} [Yes/No]", flush=True)
        try:
            answer = input().strip().lower()
        except EOFError as error:
            raise Failed("interrupted: nobody answers") from error
        if answer and "yes".startswith(answer):
            return
        if answer and "no".startswith(answer):
            raise Failed("the answer is no")


def of_server(wanted):
    """Return the name and the address of the repository `wanted` of server.conf, or of its default one."""
    path, repositories, default = f"{CONFIG}/server.conf", {}, None
    try:
        lines = open(path, encoding="utf-8").read().splitlines()
    except OSError as error:
        raise Failed(f"reading the configuration: {error}") from error
    for line in lines:
        key, _, value = (part.strip() for part in line.partition("="))
        if key == "repository":
            try:
                name, _, uri = (part.strip() for part in value.split("|"))
            except ValueError as error:
                raise Failed(f"{path}: a repository has a name, a description and an address, with | between them") from error
            repositories[name] = uri
        elif key == "default-repository":
            default = value
    name = wanted or default
    if name not in repositories:
        raise Failed(f"{path}: no repository {name}")
    if not repositories[name].startswith("file:///"):
        raise Failed(f"{path}: this tool can write to file:///… only, not to {repositories[name]}")
    return name, repositories[name].removeprefix("file://")


def of_client():
    """Return the addresses of the repositories in repositories.conf.d by name: for the index, and for packages."""
    repositories, path = {}, f"{CONFIG}/repositories.conf"
    if not os.path.exists(path):
        raise Failed(f"{path} is missing: without it, equo reads no repositories")
    for path in sorted(glob.glob(f"{CONFIG}/repositories.conf.d/entropy_*")):
        parser = configparser.ConfigParser(interpolation=None)
        try:
            parser.read(path, encoding="utf-8")
            for name in parser.sections():
                if parser.getboolean(name, "enabled", fallback=True):
                    repositories[name] = (parser[name]["repo"], parser[name]["pkg"])
        except (configparser.Error, KeyError, ValueError) as error:
            raise Failed(f"reading {path}: {error}") from error
    if not repositories:
        raise Failed(f"{CONFIG}/repositories.conf.d has no repository: write a file entropy_NAME")
    return repositories


def keywords(repository):
    """Return the keywords of packages that may be installed from a repository. Those of other architectures need package.keywords."""
    arch = {"x86_64": "amd64"}.get(os.uname().machine, os.uname().machine)
    path, accepted = f"{CONFIG}/packages/package.keywords", {arch, f"~{arch}"}
    if os.path.exists(path):
        for line in open(path, encoding="utf-8"):
            words = line.split()
            if words and not words[0].startswith("#") and words[1:] in ([], [f"repo={repository}"]):
                accepted.add("" if words[0] == "**" else words[0])
    return accepted
