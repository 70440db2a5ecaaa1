# Distributed under the terms of the project that holds this file.
EAPI=8

DESCRIPTION="A program that greets"
HOMEPAGE="https://www.gnu.org/software/hello/"
SRC_URI="mirror://gnu/${PN}/${P}.tar.gz"

LICENSE="GPL-3"
SLOT="0"
KEYWORDS="amd64"
IUSE="nls"

RDEPEND="virtual/libc"

src_configure() {
	econf $(use_enable nls)
}
