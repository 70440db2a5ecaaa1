# Runs emerge --pretend with the options and atoms given, and prints the packages that it would merge as JSON.
#
# emerge itself resolves, so that options, order and refusals are those of a build. Its own output goes to standard error. Everything
# that is printed comes from Portage's classes, not from emerge's table.

import json
import os
import sys

answer = os.fdopen(os.dup(1), "w", encoding="utf-8")
os.dup2(2, 1)

import portage

portage._internal_caller = True
portage._disable_legacy_globals()
import _emerge.actions
import _emerge.depgraph
from _emerge.main import emerge_main
from _emerge.Package import Package
from portage.versions import cpv_getversion

# Other instances of a package that are described.
MAX_PRESENT = 12
# Settings that a package is built with and that Portage does not compare.
SETTINGS = ("CHOST", "CFLAGS", "CXXFLAGS", "LDFLAGS")


def shown(pkg):
    """Returns the names of the USE flags that a user can set."""
    hidden = pkg.root_config.settings.get("USE_EXPAND_HIDDEN", "").lower().split()
    hidden = tuple(name + "_" for name in hidden)
    return sorted(flag for flag in pkg.iuse.all if not (hidden and flag.startswith(hidden)))


def use(pkg):
    enabled = frozenset(pkg.use.enabled)
    flags = shown(pkg)
    return {
        "enabled": [flag for flag in flags if flag in enabled],
        "disabled": [flag for flag in flags if flag not in enabled],
    }


def expanded(pkg):
    """Returns the USE_EXPAND variables that the package has flags of."""
    names = pkg.root_config.settings.get("USE_EXPAND", "").split()
    return sorted({name for name in names if any(flag.startswith(name.lower() + "_") for flag in shown(pkg))})


def needed_to_run(graph):
    """Returns the packages that are not needed at build time alone, or None if this Portage does not tell."""
    try:
        nodes = graph._dynamic_config.digraph.nodes
        stack = [node for node in nodes if not isinstance(node, Package)]
        reached = set(stack)
        while stack:
            for child, priorities in nodes[stack.pop()][0].items():
                run = any(not getattr(priority, "buildtime", False) for priority in priorities)
                if run and child not in reached:
                    reached.add(child)
                    stack.append(child)
        return reached
    except (AttributeError, TypeError, KeyError, IndexError):
        return None


def instance(graph, pkg, cpv, bindb):
    """Describes a binary package that could have been used for pkg."""
    repo, chost, time = bindb.aux_get(cpv, ["repository", "CHOST", "BUILD_TIME"])
    found = {
        "version": cpv_getversion(cpv),
        "build_id": str(getattr(cpv, "build_id", None) or ""),
        "built": time,
        "repository": repo,
        "chost": chost,
        "path": "",
        "masks": [],
    }
    try:
        tree = bindb.bintree
        # The packages of earlier builds are those of a local host.
        if not tree.isremote(cpv) or tree.get_local_repo_location(cpv):
            found["path"] = bindb.bintree.getname(cpv)
    except (AttributeError, portage.exception.PortageException):
        pass
    binary = graph._pkg(cpv, "binary", pkg.root_config, myrepo=repo)
    found["use"] = use(binary)
    masks = binary.masks
    if masks:
        found["masks"] = [masked(mask, value) for mask, value in sorted(masks.items())]
    return found


def masked(mask, value):
    if isinstance(value, (list, tuple, set, frozenset)):
        return mask + ": " + " ".join(sorted(str(item) for item in value))
    return mask


def settings_of(pkg):
    settings = portage.config(clone=pkg.root_config.settings)
    settings.setcpv(pkg)
    return {name: " ".join(settings.get(name, "").split()) for name in SETTINGS}


def describe(graph, pkg, run):
    db = pkg.root_config.trees[pkg.root_config.pkg_tree_map[pkg.type_name]].dbapi
    source = pkg.type_name == "ebuild"
    found = {
        "package": pkg.cp,
        "version": cpv_getversion(pkg.cpv),
        "slot": pkg.slot,
        "subslot": pkg.sub_slot or "",
        "repository": pkg.repo or "",
        "root": pkg.root,
        "source": source,
        "build_id": "" if source else str(getattr(pkg.cpv, "build_id", None) or ""),
        "use": use(pkg),
        "expand": expanded(pkg),
        "run": run is None or pkg in run,
        "fetch": {},
        "replaces": [],
        "present": [],
        "settings": {},
    }
    installed = pkg.root_config.trees["vartree"].dbapi.match(pkg.slot_atom)
    found["replaces"] = [cpv_getversion(cpv) for cpv in installed]
    try:
        sizes = db.getfetchsizes(pkg.cpv, useflags=pkg.use.enabled, myrepo=pkg.repo) if source else db.getfetchsizes(pkg.cpv)
        found["fetch"] = {os.path.basename(name): max(int(size), 0) for name, size in sizes.items()}
    except (TypeError, ValueError, portage.exception.PortageException):
        # An ebuild without a Manifest entry: emerge refuses it when it fetches.
        pass
    if source:
        bintree = pkg.root_config.trees["bintree"]
        if not bintree.populated:
            bintree.populate()
        others = bintree.dbapi.cp_list(pkg.cp)
        # The same version first, and the newest build of it.
        order = lambda cpv: (cpv == pkg.cpv, getattr(cpv, "build_time", None) or 0)
        for cpv in sorted(others, key=order, reverse=True)[:MAX_PRESENT]:
            found["present"].append(instance(graph, pkg, cpv, bintree.dbapi))
        found["settings"] = settings_of(pkg)
    return found


def report(graph):
    run = needed_to_run(graph)
    merges = [
        task
        for task in graph.altlist()
        if isinstance(task, Package) and task.operation == "merge" and not task.onlydeps
    ]
    json.dump({"packages": [describe(graph, pkg, run) for pkg in merges]}, answer)
    answer.flush()


resolve = _emerge.depgraph.backtrack_depgraph


def resolve_and_report(*args, **kwargs):
    result = resolve(*args, **kwargs)
    if result[0]:
        report(result[1])
    return result


_emerge.depgraph.backtrack_depgraph = resolve_and_report
_emerge.actions.backtrack_depgraph = resolve_and_report
try:
    code = emerge_main(["--pretend"] + sys.argv[1:])
finally:
    portage.process.run_exitfuncs()
sys.exit(code)
