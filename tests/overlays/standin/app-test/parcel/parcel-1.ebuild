EAPI=8

DESCRIPTION="Repositories of binary packages, for the tests of quern-builder; it is not Entropy"
HOMEPAGE="https://example.org/"
S="${WORKDIR}"

LICENSE="MIT"
SLOT="0"
KEYWORDS="amd64"

src_install() {
	insinto /usr/lib/parcel
	doins -r "${FILESDIR}"/parcel
}
