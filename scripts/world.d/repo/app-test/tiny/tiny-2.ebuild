# Distributed under the terms of the project that holds this file.
EAPI=8

DESCRIPTION="A package of a few files and no sources: what it installs says which flags it was built with"
HOMEPAGE="https://example.org/"
S="${WORKDIR}"

LICENSE="public-domain"
SLOT="0"
KEYWORDS="~amd64"
IUSE="bar +foo"

src_install() {
	newbin - tiny <<-SCRIPT
		#!/bin/sh
		echo "tiny foo=$(usex foo 1 0) bar=$(usex bar 1 0)"
	SCRIPT
	insinto /usr/share/tiny
	newins - flags <<<"foo=$(usex foo 1 0) bar=$(usex bar 1 0)"
	use foo && newins - foo <<<"foo"
	use bar && newins - bar <<<"bar"
	newins - cflags <<<"${CFLAGS}"

	insinto /etc
	newins - tiny.conf <<<"# configuration of tiny ${PV}"

	newman - tiny.1 <<<'.TH TINY 1'
	newdoc - NOTES <<<"A note that only people read."
	newinfo - tiny.info <<-INFO
		This is tiny.info.
		INFO-DIR-SECTION Tests
		START-INFO-DIR-ENTRY
		* tiny: (tiny).  A tiny package.
		END-INFO-DIR-ENTRY
	INFO
}

newinfo() {
	# EAPI 8 has no newinfo
	cat >"${T}/$2" || die
	doinfo "${T}/$2"
}
