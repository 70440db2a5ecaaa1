# Distributed under the terms of the project that holds this file.
EAPI=8

DESCRIPTION="A library that calls functions whose types are known only at run time"
HOMEPAGE="https://sourceware.org/libffi/"
SRC_URI="https://github.com/libffi/libffi/releases/download/v${PV}/${P}.tar.gz"

LICENSE="MIT"
SLOT="0/8"
KEYWORDS="amd64"
IUSE="static-libs"

RDEPEND="virtual/libc"

src_configure() {
	# There is no C++ compiler, and none is needed; configure only wants to preprocess.
	CC="${CHOST}-gcc" CXX=false CXXCPP="${CHOST}-gcc -E -x c" econf --disable-multi-os-directory --disable-docs $(use_enable static-libs static)
}

src_install() {
	default
	find "${ED}" -name '*.la' -delete || die
}
