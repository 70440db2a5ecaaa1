# Distributed under the terms of the project that holds this file.
EAPI=8

DESCRIPTION="A package that takes its time, to be interrupted"
HOMEPAGE="https://example.org/"
S="${WORKDIR}"

LICENSE="public-domain"
SLOT="0"
KEYWORDS="amd64"

src_compile() {
	# Seconds, from make.conf; with children and grandchildren, so that a test sees whether all of them are gone.
	local seconds=${SLOW_SECONDS:-20} child
	einfo "sleeping ${seconds} s"
	for child in 1 2 3; do
		( sleep "${seconds}" & wait ) &
	done
	wait
}

src_install() {
	insinto /usr/share/slow
	newins - done <<<"slept ${SLOW_SECONDS:-20}"
}
