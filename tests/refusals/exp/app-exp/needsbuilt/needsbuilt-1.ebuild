EAPI=8
DESCRIPTION="needsbuilt-1"
HOMEPAGE="https://example.org"
SLOT="0"
LICENSE="GPL-2"
S="${WORKDIR}"
KEYWORDS="amd64"
BDEPEND="app-exp/unstable"
src_install(){ insinto /usr/share/exp; echo ${PF} > x; newins x ${PN}; }
