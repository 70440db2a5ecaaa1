# Distributed under the terms of the project that holds this file.
EAPI=8

DESCRIPTION="A compression library"
HOMEPAGE="https://zlib.net/"
SRC_URI="https://zlib.net/${P}.dfsg.tar.bz2"

LICENSE="ZLIB"
SLOT="0/1"
KEYWORDS="amd64"
IUSE="static-libs"

RDEPEND="virtual/libc"

src_unpack() {
	default
	# the archive's top directory is not always named like the package
	[[ -d ${S} ]] || mv "${WORKDIR}"/zlib* "${S}" || die
}

src_configure() {
	CHOST="${CHOST}" CC="${CHOST}-gcc" AR="${CHOST}-ar" ./configure --prefix=/usr --libdir=/usr/lib --shared || die
}

src_install() {
	emake DESTDIR="${D}" install
	use static-libs || rm "${ED}"/usr/lib/libz.a || die
	dodoc ChangeLog README
}
