"""Merges packages with Portage, which runs their phases, protects configuration files and writes its records."""
import bz2
import os
import shutil
import tarfile

import portage
from portage.dbapi.virtual import fakedbapi
from portage.package.ebuild.doebuild import doebuild_environment
from portage.package.ebuild.prepare_build_dirs import prepare_build_dirs

from . import package
from .place import Failed


def merge(cpv, path):
    """Merge a package that was checked. Unlike emerge, this needs neither a profile nor an ebuild repository."""
    values = package.read(path)
    category, pf = cpv.split("/")
    database = fakedbapi(settings=portage.settings)
    database.cpv_inject(cpv, metadata=values)
    settings = portage.config(clone=portage.settings)
    settings.setcpv(cpv, mydb=database)
    settings["EMERGE_FROM"] = "binary"
    settings.backup_changes("EMERGE_FROM")
    directory = f"{settings['PORTAGE_TMPDIR']}/portage/{cpv}"
    shutil.rmtree(directory, ignore_errors=True)
    ebuild = f"{directory}/build-info/{pf}.ebuild"
    doebuild_environment(ebuild, "preinst", settings=settings, db=database)
    prepare_build_dirs(settings=settings, cleanup=True)
    os.makedirs(f"{directory}/build-info", exist_ok=True)
    for name, value in package.raw(path).items():
        with open(f"{directory}/build-info/{name}", "wb") as file:
            file.write(value)
    with open(path, "rb") as file, tarfile.open(fileobj=bz2.BZ2File(package.archive(file)), mode="r|") as archive:
        archive.extractall(f"{directory}/image", numeric_owner=True)
    vartree = portage.db[portage.root]["vartree"]
    code = portage.merge(category, pf, f"{directory}/image", f"{directory}/build-info", settings=settings, myebuild=ebuild,
                         mytree="bintree", mydbapi=database, vartree=vartree)
    shutil.rmtree(directory, ignore_errors=True)
    if code != os.EX_OK:
        raise Failed(f"merging {cpv} failed with code {code}")
