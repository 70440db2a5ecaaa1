"""Compare how four readers of tar read the same archives: this program, GNU tar, libarchive and Python's tarfile.

usage: parsers.py PROGRAM < NAMES

For each file named on standard input a line of JSON: "file", and "verdict". That is "same" (all four give the same entries; "entries"
is how many), "refused" (with "code"), or "differs" (this program accepts it; "who" has what the others see instead).
"""

import calendar
import ctypes
import ctypes.util
import json
import locale
import os
import re
import subprocess
import sys
import tarfile
import tempfile

locale.setlocale(locale.LC_ALL, "C.UTF-8")

FIELDS = ("path", "type", "size", "mode", "uid", "gid", "mtime", "link", "device")


class Refused(Exception):
    """A reader refuses the archive."""


def entry(path, kind, size, mode, uid, gid, mtime, link=None, device=None):
    """Return an entry in the form that is compared: paths from the root, also in hard links."""
    if kind == "hardlink":
        link = clean(link)
    if kind not in ("hardlink", "symlink"):
        link = None
    if kind not in ("char", "block"):
        device = None
    return (clean(path), kind, size if kind == "file" else 0, mode & 0o7777, uid, gid, mtime, link, device)


def clean(path):
    return b"/".join(part for part in path.split(b"/") if part not in (b"", b"."))


def ours(program, path):
    with open(path, "rb") as file:
        ran = subprocess.run([program, "raw", "ls", "--json"], stdin=file, capture_output=True)
    lines = [json.loads(line) for line in ran.stdout.splitlines()]
    if ran.returncode == 3 and lines and "refused" in lines[-1]:
        raise Refused(lines[-1]["refused"])
    if ran.returncode != 0:
        sys.exit(f"{path}: raw ls ended with {ran.returncode}: {ran.stderr.decode(errors='replace')}")
    text = lambda value: value.encode() if isinstance(value, str) else bytes(value)
    for line in lines:
        link, device = line.get("link"), line.get("device")
        yield entry(text(line["path"]), line["type"], line["size"], line["mode"], line["uid"], line["gid"],
                    (line["mtime"], line["mtime_nsec"]), None if link is None else text(link),
                    None if device is None else tuple(device))


GNU = re.compile(rb'([-hlcbdpCMSVNL])([-rwxsStT]{9})[+.*]?\s+(\d+)/(\d+)\s+(\d+|\d+,\d+) '
                 rb'(-?\d+)-(\d\d)-(\d\d) (\d\d):(\d\d):(\d\d)(?:\.(\d+))? +"((?:[^"\\]|\\.)*)"'
                 rb'(?: (?:->|link to) "((?:[^"\\]|\\.)*)")?$', re.S)
LETTERS = {b"a": 7, b"b": 8, b"f": 12, b"n": 10, b"r": 13, b"t": 9, b"v": 11, b"\\": 92, b'"': 34, b"?": 63}


def gnu(path):
    command = ["tar", "--list", "--verbose", "--numeric-owner", "--full-time", "--quoting-style=c", "--file", path]
    ran = subprocess.run(command, capture_output=True, env={"PATH": os.environ["PATH"], "LC_ALL": "C", "TZ": "UTC"})
    if ran.returncode != 0:
        raise Refused(ran.stderr.decode(errors="replace").splitlines()[0])
    for line in ran.stdout.split(b"\n")[:-1]:
        found = GNU.match(line)
        if not found:
            raise Refused(f"a line that says {line!r}")
        letter, bits, uid, gid, size = found.group(1, 2, 3, 4, 5)
        year, month, day, hour, minute, second = map(int, found.group(6, 7, 8, 9, 10, 11))
        nanoseconds = int((found.group(12) or b"0").ljust(9, b"0"))
        kinds = {b"-": "file", b"C": "file", b"h": "hardlink", b"l": "symlink", b"c": "char", b"b": "block", b"d": "dir", b"p": "fifo"}
        device = tuple(map(int, size.split(b","))) if b"," in size else None
        yield entry(unquote(found.group(13)), kinds.get(letter, letter.decode()), 0 if device else int(size), mode_of(bits),
                    int(uid), int(gid), (calendar.timegm((year, month, day, hour, minute, second)), nanoseconds),
                    None if found.group(14) is None else unquote(found.group(14)), device)


def unquote(text):
    plain = lambda found: bytes([int(found.group(1), 8) if found.group(1)[:1].isdigit() else LETTERS[found.group(1)]])
    return re.sub(rb"\\([0-7]{3}|.)", plain, text, flags=re.S)


def mode_of(text):
    bits = 0
    for at, letter in enumerate(text.decode()):
        if letter in "rwxst":
            bits |= 0o400 >> at
        if letter in "sStT":
            bits |= 0o4000 >> (at // 3)
    return bits


lib = ctypes.CDLL(ctypes.util.find_library("archive") or "libarchive.so.13")
for name, result in {
    "archive_read_new": "void_p", "archive_error_string": "char_p", "archive_entry_pathname": "char_p",
    "archive_entry_hardlink": "char_p", "archive_entry_symlink": "char_p", "archive_entry_size": "int64",
    "archive_entry_mtime": "int64", "archive_entry_mtime_nsec": "long", "archive_entry_uid": "int64",
    "archive_entry_gid": "int64", "archive_entry_rdevmajor": "uint64", "archive_entry_rdevminor": "uint64",
    "archive_entry_filetype": "uint", "archive_entry_perm": "uint",
}.items():
    getattr(lib, name).restype = getattr(ctypes, "c_" + result)


def libarchive(path):
    reader, header = ctypes.c_void_p(lib.archive_read_new()), ctypes.c_void_p()
    try:
        lib.archive_read_support_filter_all(reader)
        lib.archive_read_support_format_tar(reader)
        # With a warning (-20), for example about a name that is not UTF-8, there is still an entry.
        check = lambda code: code in (0, 1, -20) or refuse(reader)
        check(lib.archive_read_open_filename(reader, os.fsencode(path), ctypes.c_size_t(1 << 16)))
        while True:
            code = lib.archive_read_next_header(reader, ctypes.byref(header))
            check(code)
            if code == 1:
                return
            get = lambda what: getattr(lib, "archive_entry_" + what)(header)
            kinds = {0o100000: "file", 0o120000: "symlink", 0o020000: "char", 0o060000: "block", 0o040000: "dir", 0o010000: "fifo"}
            hard, kind = get("hardlink"), kinds.get(get("filetype"), "none")
            if get("pathname") is None:
                raise Refused("an entry without a name")
            yield entry(get("pathname"), "hardlink" if hard is not None else kind, get("size"), get("perm"), get("uid"), get("gid"),
                        (get("mtime"), get("mtime_nsec")), hard if hard is not None else get("symlink"),
                        (get("rdevmajor"), get("rdevminor")))
    finally:
        lib.archive_read_free(reader)


def refuse(reader):
    raise Refused((lib.archive_error_string(reader) or b"no reason").decode(errors="replace"))


def python(path):
    kinds = {tarfile.LNKTYPE: "hardlink", tarfile.SYMTYPE: "symlink", tarfile.CHRTYPE: "char", tarfile.BLKTYPE: "block",
             tarfile.DIRTYPE: "dir", tarfile.FIFOTYPE: "fifo"}
    try:
        with tarfile.open(path, encoding="utf-8", errors="surrogateescape") as archive:
            for info in archive:
                link = info.linkname.encode("utf-8", "surrogateescape")
                yield entry(info.name.encode("utf-8", "surrogateescape"), kinds.get(info.type, "file"), info.size, info.mode,
                            info.uid, info.gid, moment(info), link, (info.devmajor, info.devminor))
    except Exception as error:  # tarfile raises many kinds of exceptions.
        raise Refused(f"{type(error).__name__}: {error}") from error


def moment(info):
    text = info.pax_headers.get("mtime")
    if text is None or not re.fullmatch(r"-?\d+(\.\d+)?", text):
        return (int(info.mtime), 0)
    whole, _, fraction = text.partition(".")
    nanoseconds = int(fraction[:9].ljust(9, "0") or 0)
    if text.startswith("-") and nanoseconds:
        return (int(whole) - 1, 10**9 - nanoseconds)
    return (int(whole), nanoseconds)


def difference(mine, other):
    for at, (one, two) in enumerate(zip(mine, other)):
        for field, here, there in zip(FIELDS, one, two):
            if here != there:
                return f"{field} of entry {at}: {here!r} here, {there!r} there"
    if len(mine) != len(other):
        return f"{len(mine)} entries here, {len(other)} there"
    return None


def judge(program, path):
    try:
        mine = list(ours(program, path))
    except Refused as refusal:
        return {"verdict": "refused", "code": str(refusal)}
    with open(path, "rb") as file:
        magic = file.read(4)
        # Or a skippable frame, which only libarchive recognizes at the beginning.
        zstd = magic == b"\x28\xb5\x2f\xfd" or (magic[1:] == b"\x2a\x4d\x18" and magic[0] >> 4 == 5)
    if zstd:
        # Python has no decoder for it.
        with tempfile.NamedTemporaryFile() as plain:
            subprocess.run(["zstd", "-qdc", path], stdout=plain, check=True)
            return compare(mine, plain.name)
    return compare(mine, path)


def compare(mine, path):
    who = {}
    for reader in (gnu, libarchive, python):
        try:
            found = difference(mine, list(reader(path)))
        except Refused as refusal:
            found = f"refused: {refusal}"
        if found:
            who[reader.__name__] = found
    return {"verdict": "differs", "who": who} if who else {"verdict": "same", "entries": len(mine)}


if __name__ == "__main__":
    for line in sys.stdin:
        print(json.dumps({"file": line.rstrip("\n"), **judge(sys.argv[1], line.rstrip("\n"))}), flush=True)
