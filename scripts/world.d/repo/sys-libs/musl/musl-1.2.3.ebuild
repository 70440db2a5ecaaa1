# Distributed under the terms of the project that holds this file.
EAPI=8

DESCRIPTION="A small C library for Linux"
HOMEPAGE="https://musl.libc.org/"
SRC_URI="https://musl.libc.org/releases/${P}.tar.gz"

LICENSE="MIT"
SLOT="0"
KEYWORDS="amd64"
RESTRICT="test"

src_configure() {
	# The C library is made by the compiler alone: neither flags nor headers of another one may come in.
	CC="${CHOST}-gcc" ./configure \
		--target="${CHOST}" \
		--prefix=/usr \
		--syslibdir=/usr/lib \
		--disable-gcc-wrapper || die
}

src_install() {
	emake DESTDIR="${D}" install
	# The loader is the library itself; beside it, so that the link holds under any root.
	dosym libc.so /usr/lib/ld-musl-x86_64.so.1
	dosym ../lib/libc.so /usr/bin/ldd
	newenvd - 00musl <<<'# musl reads /etc/ld-musl-x86_64.path, not LDPATH'
	dodoc README WHATSNEW COPYRIGHT
}
