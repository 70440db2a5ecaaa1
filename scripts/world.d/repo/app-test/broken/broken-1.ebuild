# Distributed under the terms of the project that holds this file.
EAPI=8

DESCRIPTION="A package that does not compile"
HOMEPAGE="https://example.org/"
S="${WORKDIR}"

LICENSE="public-domain"
SLOT="0"
KEYWORDS="amd64"

src_compile() {
	echo 'int main(void) { return undeclared_thing; }' >broken.c || die
	"${CHOST}-gcc" -o broken broken.c || die "the compiler refused broken.c"
}
