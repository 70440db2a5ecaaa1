# Distributed under the terms of the project that holds this file.
EAPI=8

DESCRIPTION="Whatever the C library of this system is"
SLOT="0"
KEYWORDS="amd64"

# The stand-in world has no ebuild for glibc, which is part of its stage3.
RDEPEND="elibc_musl? ( sys-libs/musl )"
