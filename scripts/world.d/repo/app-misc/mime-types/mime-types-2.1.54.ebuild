# Distributed under the terms of the project that holds this file.
EAPI=8

DESCRIPTION="A list of file name endings and the media types they stand for"
HOMEPAGE="https://www.iana.org/assignments/media-types/"
S="${WORKDIR}"

LICENSE="public-domain"
SLOT="0"
KEYWORDS="amd64"

src_install() {
	insinto /etc
	newins - mime.types <<-TYPES
		application/gzip	gz
		application/json	json
		text/html	html htm
		text/plain	txt
	TYPES
}
