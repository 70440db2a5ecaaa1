# Distributed under the terms of the project that holds this file.
EAPI=8

DESCRIPTION="An interpreted, interactive, object-oriented programming language"
HOMEPAGE="https://www.python.org/"
SRC_URI="https://www.python.org/ftp/python/${PV}/Python-${PV}.tgz"
S="${WORKDIR}/Python-${PV}"

LICENSE="PSF-2"
SLOT="3.11"
KEYWORDS="amd64"
IUSE="ensurepip tk"
RESTRICT="test"

DEPEND="
	dev-libs/libffi:=
	sys-libs/zlib:=
	tk? ( dev-lang/tk:= )
"
RDEPEND="
	${DEPEND}
	app-misc/mime-types
	virtual/libc
"

src_prepare() {
	default
	# Byte-compile once, not at three levels, and not the test suite: its files are read by few and take the longest.
	sed -i -e 's/-j0 -o 0 -o 1 -o 2/-j0 -o 0/' -e "s#-x 'bad_coding|#-x '/test/|bad_coding|#" Makefile.pre.in || die
}

src_configure() {
	local args=(
		--build="${CHOST}"
		--enable-shared
		--with-system-ffi
		--without-static-libpython
		--with-ensurepip=$(usex ensurepip)
	)
	CC="${CHOST}-gcc" CXX=false AR="${CHOST}-ar" econf "${args[@]}"
}

src_install() {
	emake DESTDIR="${D}" install
	# setup.py keeps what it could not import; _crypt is one, where the builder's libc has no crypt()
	find "${ED}" -name '*_failed.so' -delete || die
	# what needs Tk
	rm -r "${ED}"/usr/bin/idle3* "${ED}"/usr/lib/python3.11/{idlelib,tkinter,turtledemo,turtle.py} || die
	dodoc README.rst Misc/ACKS
}
