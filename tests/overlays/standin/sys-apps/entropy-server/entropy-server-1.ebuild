EAPI=8

DESCRIPTION="The command line of eit for the tests of quern-builder; it is not Entropy"
HOMEPAGE="https://example.org/"
S="${WORKDIR}"

LICENSE="MIT"
SLOT="0"
KEYWORDS="amd64"
RDEPEND="app-test/parcel"

src_install() {
	newbin - eit <<-'EOF'
		#!/usr/bin/python3
		import sys
		sys.path.insert(0, "/usr/lib/parcel")
		from parcel import server
		server.main()
	EOF
}
