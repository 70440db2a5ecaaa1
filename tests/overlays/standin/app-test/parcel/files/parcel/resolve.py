"""The order in which packages are installed: each after those that it needs to run."""
import portage
from portage.dbapi.virtual import fakedbapi
from portage.dep import Atom, use_reduce


class Unmet(Exception):
    """A dependency that no package satisfies."""


def database(lines):
    """Return packages of an index as a database of Portage, which can compare them with atoms."""
    found = fakedbapi(settings=portage.settings, exclusive_slots=False)
    for cpv, line in lines.items():
        found.cpv_inject(cpv, metadata=line)
    return found


def installed():
    """Return the database of the installed packages."""
    return portage.db[portage.root]["vartree"].dbapi


def dependencies(line, name):
    """Return the dependencies of a package: atoms and, for a choice, lists that begin with `||`."""
    return use_reduce(line[name], uselist=line["USE"].split(), eapi=line["EAPI"], opconvert=True, token_class=Atom)


class Order:
    """Packages to install, in order."""

    def __init__(self, lines):
        self.lines, self.available, self.installed = lines, database(lines), installed()
        self.order, self.entered = [], set()

    def name(self, atom):
        """Add a package that the user names, also if it is installed."""
        self.enter(self.best(Atom(atom), "the command line"))

    def best(self, atom, whose):
        """Return the newest package for an atom."""
        cpv = portage.best(self.available.match(atom))
        if not cpv:
            raise Unmet(f"no repository has a package for {atom}, which {whose} needs")
        return str(cpv)

    def enter(self, cpv):
        """Add a package after those that it needs. A package that needs itself in the end comes before one of them."""
        if cpv in self.entered:
            return
        self.entered.add(cpv)
        for node in dependencies(self.lines[cpv], "RDEPEND"):
            self.need(node, cpv)
        self.order.append(cpv)
        for node in dependencies(self.lines[cpv], "PDEPEND"):
            self.need(node, cpv)

    def need(self, node, cpv):
        """Add the packages for a dependency, unless it is met."""
        if isinstance(node, list):
            self.choose(node, cpv)
        elif node.blocker:
            other = Atom(str(node).lstrip("!"))
            if self.meets(other):
                raise Unmet(f"{cpv} cannot be installed beside {other}")
        elif not self.meets(node):
            self.enter(self.best(node, cpv))

    def choose(self, node, cpv):
        """Take the first alternative that is met, otherwise the first that can be met; all parts of a group."""
        if node[:1] != ["||"]:
            for part in node:
                self.need(part, cpv)
            return
        parts = node[1:]
        taken = next((part for part in parts if self.meets(part)), None) or next((part for part in parts if self.can(part)), None)
        if taken is None:
            raise Unmet(f"{cpv} needs one of {parts}, and no repository has one")
        self.need(taken, cpv)

    def meets(self, node):
        """Return true if an installed package, or one that is going to be, satisfies a dependency."""
        if isinstance(node, list):
            return (any if node[:1] == ["||"] else all)(self.meets(part) for part in node if part != "||")
        return bool(self.installed.match(node)) or any(str(cpv) in self.entered for cpv in self.available.match(node))

    def can(self, node):
        """Return true if packages of the repositories can satisfy a dependency."""
        if isinstance(node, list):
            return (any if node[:1] == ["||"] else all)(self.can(part) for part in node if part != "||")
        return self.meets(node) or bool(self.available.match(node))


def missing(lines):
    """Return pairs of a dependency that neither the packages nor the installed ones satisfy, and the package that has it."""
    found = []
    for cpv in lines:
        order = Order(lines)
        try:
            order.enter(cpv)
        except Unmet as error:
            found.append((str(error), cpv))
    return found
