# Distributed under the terms of the project that holds this file.
EAPI=8

DESCRIPTION="Whatever the C library of this system is"
SLOT="0"
KEYWORDS="amd64"

# The stand-in has no ebuild for glibc: its stage3 brings one.
RDEPEND="elibc_musl? ( sys-libs/musl )"
