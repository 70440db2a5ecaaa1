"""Make damaged tar archives, reproducibly for a seed.

usage: mutants.py DIRECTORY COUNT SEED

Small archives in three formats by Python's tarfile, with a field, a type, a block or a PAX record changed and, most of the time, the
checksum made right again, so that readers get as far as the field.
"""

import io
import os
import random
import sys
import tarfile

BLOCK = 512
FIELDS = [(0, 100), (100, 8), (108, 8), (116, 8), (124, 12), (136, 12), (156, 1), (157, 100), (257, 8), (265, 32), (297, 32), (329, 8),
          (337, 8), (345, 155), (500, 12)]
VALUES = [b"", b"0", b"1", b"7777777", b" 12 ", b"12", b"-1", b"+1", b"0x1", b"1.5", b" ", b"12 3", b"\t12", b"12\t", b"12 \x003", b"0o1", b"1_0",
          b"\x8012", b"\x80\0\0\0\0\0\0\1", b"\x80" + b"\0" * 10 + b"\5", b"\x80" + b"\xff" * 11, b"\xff" * 12, b"/a", b"./a", b"a/", b"a//b",
          b"a\0b", b"../a", b".", b"tar\0", b"a" * 100]
MAGICS = [b"ustar\x0000", b"ustar  \0", b"\0" * 8, b"ustar\0\0\0", b"ustar   ", b"USTAR\x0000"]
RECORDS = [{"path": "p"}, {"linkpath": "q"}, {"mtime": "1.25"}, {"atime": "5"}, {"uid": "5"}, {"size": "1"}, {"comment": "x"}, {"charset": "x"},
           {"SCHILY.xattr.user.a": "b"}, {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "7"},
           {"GNU.sparse.map": "0,1", "GNU.sparse.numblocks": "1", "GNU.sparse.size": "9"}, {"hdrcharset": "BINARY"}]


def archive(rng):
    file = io.BytesIO()
    form = rng.choice([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT])
    with tarfile.open(fileobj=file, mode="w", format=form) as out:
        for number in range(rng.randint(1, 4)):
            name = rng.choice(["a", "b/c", "dir/", "x" * rng.choice([5, 99, 100, 101, 150]), "l" * 90 + "/" + "m" * 80, "ü"])
            info = tarfile.TarInfo(f"{name}{number}")
            info.type = rng.choice([b"0", b"0", b"1", b"2", b"3", b"4", b"5", b"6", b"7", b"\0"])
            info.mode, info.uid, info.mtime = rng.choice([0o644, 0o4755, 0o1777]), rng.choice([0, 1000]), rng.choice([0, 1, 1.5, 2**31])
            if info.type in (b"0", b"7", b"\0"):
                info.size = rng.choice([0, 1, 511, 512, 513, 1500])
            if info.type in (b"1", b"2"):
                info.linkname = rng.choice(["a0", "b/c0", "../x", "y" * rng.choice([20, 100, 120])])
            if rng.random() < 0.5:
                info.pax_headers = rng.choice(RECORDS)
            try:
                out.addfile(info, io.BytesIO(b"D" * info.size))
            except ValueError:
                pass  # The name does not fit into ustar.
    return bytearray(file.getvalue())


def checksum(block):
    return sum(block[:148]) + sum(block[156:]) + 8 * 32


def is_header(block):
    try:
        return int(bytes(block[148:156]).split(b"\0")[0], 8) == checksum(block)
    except ValueError:
        return False


def damage(rng, bytes_):
    headers = [at for at in range(0, len(bytes_) - BLOCK + 1, BLOCK) if is_header(bytes_[at:at + BLOCK])]
    choice = rng.random()
    if headers and choice < 0.75:
        at = rng.choice(headers)
        start, size = rng.choice(FIELDS)
        kind = rng.random()
        if kind < 0.35:
            bytes_[at + start + rng.randrange(size)] = rng.choice([0, 32, 46, 47, 48, 49, 55, 56, 65, 0x80, 0xFF, rng.randrange(256)])
        elif kind < 0.6:
            bytes_[at + start:at + start + size] = rng.choice(VALUES)[:size].ljust(size, rng.choice([b"\0", b" "]))
        elif kind < 0.85:
            bytes_[at + 156] = rng.choice(b"01234567\0gxLKSDVMNAXEZI")
        else:
            bytes_[at + 257:at + 265] = rng.choice(MAGICS)
        bytes_[at + 148:at + 156] = b"%06o\0 " % checksum(bytes_[at:at + BLOCK])
    elif choice < 0.85:
        at = rng.randrange(len(bytes_) // BLOCK) * BLOCK
        kind = rng.random()
        if kind < 0.4:
            del bytes_[at:at + BLOCK]
        elif kind < 0.7:
            bytes_[at:at] = bytes_[at:at + BLOCK]
        elif kind < 0.85:
            bytes_[at:at] = bytes(BLOCK)
        else:
            del bytes_[at + rng.randrange(BLOCK):]
    else:
        places = [at for at, byte in enumerate(bytes_) if byte == ord("=")]
        if places:
            at = rng.choice(places) + rng.randint(-8, 8)
            if 0 <= at < len(bytes_):
                bytes_[at] = rng.choice(b"\0\n 01.-=a\xff")


if __name__ == "__main__":
    directory, count, seed = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    rng = random.Random(seed)
    for number in range(count):
        mutant = archive(rng)
        for _ in range(rng.choice([1, 1, 1, 2, 3])):
            if len(mutant) >= BLOCK:
                damage(rng, mutant)
        with open(os.path.join(directory, f"{number:06}.tar"), "wb") as out:
            out.write(mutant)
