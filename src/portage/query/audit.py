# Prints the security advisories (GLSAs) of all repositories that affect packages, as JSON.
#
# Each argument names a package as CATEGORY/PACKAGE-VERSION SLOT REPOSITORY, and the argument --installed names those installed in ROOT, of
# which a later argument replaces one of the same name and slot. Without arguments, the packages are those installed in ROOT.
# Portage's own class reads the advisories and compares versions.

import json
import os
import re
import sys

answer = os.fdopen(os.dup(1), "w", encoding="utf-8")
os.dup2(2, 1)

import portage

portage._internal_caller = True
from portage.dbapi.virtual import fakedbapi
from portage.glsa import Glsa, match
from portage.versions import cpv_getkey, cpv_getversion

root = portage.db[portage.settings["EROOT"]]
settings = portage.config(clone=root["vartree"].settings)
portdb = root["porttree"].dbapi
if len(sys.argv) > 1:
    packages = fakedbapi(settings)
    words = sys.argv[1:]
    if words[0] == "--installed":
        installed = root["vartree"].dbapi
        facts = [(cpv, installed.aux_get(cpv, ["SLOT", "repository"])) for cpv in installed.cpv_all()]
        words[:1] = [" ".join([cpv, *found]) for cpv, found in facts]
    for word in words:
        cpv, slot, repository = word.split(" ")
        packages.cpv_inject(cpv, {"SLOT": slot, "repository": repository, "EAPI": "8"})
else:
    packages = root["vartree"].dbapi


def affected(advisory):
    """Yields the affected packages of an advisory, as isVulnerable() finds them, and its fixed versions."""
    for name, paths in advisory.packages.items():
        for path in paths:
            if path["arch"] != "*" and settings["ARCH"] not in path["arch"].split():
                continue
            found = set()
            for atom in path["vul_atoms"]:
                found.update(match(atom, packages))
            for atom in path["unaff_atoms"]:
                found.difference_update(match(atom, packages))
            for cpv in sorted(found):
                yield {
                    "package": cpv_getkey(cpv),
                    "version": cpv_getversion(cpv),
                    "fixed": [str(atom) for atom in path["unaff_atoms"]],
                }


def advisories(directory):
    names = sorted(name for name in os.listdir(directory) if name.startswith("glsa-") and name.endswith(".xml"))
    known = frozenset(cpv_getkey(cpv).encode() for cpv in packages.cpv_all())
    for name in names:
        # Reading every advisory as XML would take many seconds.
        with open(os.path.join(directory, name), "rb") as file:
            if known.isdisjoint(re.findall(rb"""name\s*=\s*["']([^"']+)["']""", file.read(1 << 20))):
                continue
        number = name[len("glsa-") : -len(".xml")]
        settings["GLSA_DIR"] = directory + os.sep
        try:
            advisory = Glsa(number, settings, packages, portdb)
        except Exception as error:
            yield {"id": number, "error": type(error).__name__ + ": " + str(error)}
            continue
        found = list(affected(advisory))
        if found:
            yield {
                "id": number,
                "title": str(advisory.title),
                "severity": str(advisory.impact_type),
                "affected": found,
            }


report = {"packages": len(packages.cpv_all()), "repositories": [], "advisories": []}
for repository in settings.repositories:
    directory = os.path.join(repository.location, "metadata", "glsa")
    if os.path.isdir(directory):
        report["repositories"].append(repository.name)
        report["advisories"].extend(advisories(directory))
json.dump(report, answer)
answer.flush()
