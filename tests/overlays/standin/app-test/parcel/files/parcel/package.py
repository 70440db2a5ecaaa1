"""Binary packages in the format xpak: a tar archive, compressed with bzip2, and the metadata after it."""
import bz2
import hashlib
import os
import struct
import tarfile

SUFFIX = ".tbz2"
HEAD, TAIL, END = b"XPAKPACK", b"XPAKSTOP", b"STOP"
CHUNK = 1 << 20


class Damaged(Exception):
    """A package of which a part is missing or wrong."""


class Section:
    """The first bytes of a file."""

    def __init__(self, file, size):
        self.file, self.left = file, size
        file.seek(0)

    def read(self, size=-1):
        data = self.file.read(self.left if size < 0 else min(size, self.left))
        self.left -= len(data)
        return data

    def seekable(self):
        return False


def read(path):
    """Return the metadata of a package by name, after a check of the whole file. Values that are not text are left out.

    Raises Damaged.
    """
    values = {}
    for name, value in raw(path).items():
        try:
            values[name] = value.decode().strip()
        except UnicodeDecodeError:
            pass
    with open(path, "rb") as file:
        check_archive(path, archive(file))
    for name in ("CATEGORY", "PF", "SLOT", "EAPI"):
        if not values.get(name):
            raise Damaged(f"{path}: the metadata has no {name}")
    return values


def raw(path):
    """Return the metadata of a package by name. Raises Damaged."""
    with open(path, "rb") as file:
        length = metadata_length(file)
        file.seek(-8 - length, os.SEEK_END)
        segment = file.read(length)
    try:
        return metadata(segment)
    except Damaged as error:
        raise Damaged(f"{path}: {error}") from error


def archive(file):
    """Return the part of a package that is an archive. Raises Damaged."""
    length = metadata_length(file)
    return Section(file, file.seek(0, os.SEEK_END) - 8 - length)


def metadata_length(file):
    """Return the length of the metadata, which the last bytes of a package have. Raises Damaged."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(size - 8, 0))
    length, end = unpack(">I4s", file.read(8))
    if end != END or length > size - 8:
        raise Damaged(f"{file.name}: the package has no metadata in the format xpak")
    return length


def unpack(form, data):
    """Unpack numbers and bytes. Raises Damaged."""
    try:
        return struct.unpack(form, data)
    except struct.error as error:
        raise Damaged(f"the package ends too early: {error}") from error


def metadata(segment):
    """Return the values in a segment of the format xpak. Raises Damaged."""
    head, names, length = unpack(">8sII", segment[:16])
    if head != HEAD or segment[-8:] != TAIL or 24 + names + length != len(segment):
        raise Damaged("the metadata is damaged")
    listing, data = segment[16:16 + names], segment[16 + names:-8]
    values = {}
    while listing:
        (size,) = unpack(">I", listing[:4])
        name = listing[4:4 + size].decode(errors="replace")
        start, count = unpack(">II", listing[4 + size:12 + size])
        listing = listing[12 + size:]
        if start + count > len(data) or "/" in name:
            raise Damaged(f"the metadata is damaged at {name}")
        values[name] = data[start:start + count]
    return values


def check_archive(path, section):
    """Read every byte of the archive, which has checksums of its own. Raises Damaged."""
    try:
        with tarfile.open(fileobj=bz2.BZ2File(section), mode="r|") as members:
            for member in members:
                if member.name.startswith("/") or ".." in member.name.split("/"):
                    raise Damaged(f"{path}: the archive has the path {member.name}")
    except (OSError, EOFError, tarfile.TarError) as error:
        raise Damaged(f"{path}: the archive is damaged: {error}") from error


def digest(path):
    """Return the size of a file and its SHA-256 in hexadecimal digits."""
    sha256, size = hashlib.sha256(), 0
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK):
            sha256.update(chunk)
            size += len(chunk)
    return size, sha256.hexdigest()
