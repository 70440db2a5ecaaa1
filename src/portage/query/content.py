# Prints packages as lines of text that change exactly if a merge of them would have another result: each with its flags and the content
# of its ebuild, its eclasses and its files. A binary package counts as its ebuild, if there is one.
#
# With `--installed CPV...` the packages are those, installed in ROOT. Otherwise the arguments are those of emerge, and the packages are
# those that it would merge into ROOT.

import hashlib
import os
import sys

answer = os.fdopen(os.dup(1), "w", encoding="utf-8")
os.dup2(2, 1)

import portage

portage._internal_caller = True
import _emerge.actions
import _emerge.depgraph
from _emerge.main import emerge_main
from _emerge.Package import Package


def digest(path):
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()


def files(directory):
    found = []
    for where, below, names in os.walk(directory):
        below.sort()
        for name in sorted(names):
            path = os.path.join(where, name)
            what = os.readlink(path) if os.path.islink(path) else digest(path)
            found.append(os.path.relpath(path, directory) + " " + what)
    return found


def content(portdb, cpv, repo, build):
    path = portdb.findname(cpv, myrepo=repo) if repo else None
    if not path:
        # A binary package without an ebuild is itself.
        return ["build " + build]
    place = os.path.dirname(path)
    found = ["ebuild " + digest(path)]
    eclasses = portdb.repositories[repo].eclass_db.eclasses
    for name in sorted(set(portdb.aux_get(cpv, ["INHERITED"], myrepo=repo)[0].split())):
        found.append("eclass " + name + " " + digest(eclasses[name].location))
    manifest = os.path.join(place, "Manifest")
    if os.path.exists(manifest):
        found.append("manifest " + digest(manifest))
    return found + ["file " + line for line in files(os.path.join(place, "files"))]


def tell(packages):
    """Prints packages: database of ebuilds, cpv, slot, repository, USE flags, IUSE, identity of the build."""
    lines = []
    for portdb, cpv, slot, repo, use, iuse, build in packages:
        flags = sorted(flag for flag in use if flag in iuse)
        head = " ".join([str(cpv), slot, repo, "[" + " ".join(flags) + "]"])
        lines.append("\n  ".join([head] + content(portdb, cpv, repo, build)))
    print("\n".join(sorted(lines) + ["end"]), file=answer)
    answer.flush()


def built(pkg):
    metadata = pkg._metadata
    return " ".join([metadata.get("BUILD_ID", ""), metadata.get("BUILD_TIME", "")])


def described(pkg):
    portdb = pkg.root_config.trees["porttree"].dbapi
    slot = pkg.slot + "/" + (pkg.sub_slot or "")
    return portdb, pkg.cpv, slot, pkg.repo or "", pkg.use.enabled, pkg.iuse.all, built(pkg)


def report(graph):
    merges = [
        task
        for task in graph.altlist()
        if isinstance(task, Package) and task.operation == "merge" and not task.onlydeps
    ]
    # What is merged into the builder depends on the binary packages that there are.
    target = graph._frozen_config.target_root
    tell([described(pkg) for pkg in merges if pkg.root == target])


def installed(cpvs):
    trees = portage.db[portage.settings["EROOT"]]
    names = ["SLOT", "repository", "USE", "IUSE", "BUILD_ID", "BUILD_TIME"]
    packages = []
    for cpv in cpvs:
        slot, repo, use, iuse, build_id, build_time = trees["vartree"].dbapi.aux_get(cpv, names)
        slot, _, sub_slot = slot.partition("/")
        iuse = {flag.lstrip("+-") for flag in iuse.split()}
        build = " ".join([build_id, build_time])
        packages.append((trees["porttree"].dbapi, cpv, slot + "/" + (sub_slot or slot), repo, use.split(), iuse, build))
    tell(packages)


resolve = _emerge.depgraph.backtrack_depgraph


def resolve_and_report(*args, **kwargs):
    result = resolve(*args, **kwargs)
    if result[0]:
        report(result[1])
    return result


if sys.argv[1:2] == ["--installed"]:
    installed(sys.argv[2:])
    sys.exit(0)
portage._disable_legacy_globals()
_emerge.depgraph.backtrack_depgraph = resolve_and_report
_emerge.actions.backtrack_depgraph = resolve_and_report
try:
    code = emerge_main(["--pretend"] + sys.argv[1:])
finally:
    portage.process.run_exitfuncs()
sys.exit(code)
