# Distributed under the terms of the project that holds this file.
EAPI=8

DESCRIPTION="Every kind of file that a packer may get wrong"
HOMEPAGE="https://example.org/"
S="${WORKDIR}"

LICENSE="public-domain"
SLOT="0"
KEYWORDS="amd64"
# No file here is a program that could be stripped.
RESTRICT="strip"

src_install() {
	exeinto /usr/libexec/odd
	newexe - setuid <<<'#!/bin/sh'
	newexe - setgid <<<'#!/bin/sh'
	newexe - capable <<<'#!/bin/sh'
	# by number, and not to portage, whose files Portage gives to root
	fowners 0:100 /usr/libexec/odd/setgid
	fperms 4711 /usr/libexec/odd/setuid
	fperms 2755 /usr/libexec/odd/setgid

	insinto /usr/share/odd
	newins - original <<<"one inode, three names"
	ln "${ED}"/usr/share/odd/{original,hard-link} || die
	dodir /usr/share/odd/below
	ln "${ED}"/usr/share/odd/{original,below/hard-link} || die

	dosym original /usr/share/odd/relative-link
	dosym /usr/share/odd/original /usr/share/odd/absolute-link
	dosym nowhere /usr/share/odd/dangling-link
	dosym ../../../../../../../../etc/passwd /usr/share/odd/link-that-climbs

	newins - 'name with  spaces' <<<"spaces"
	newins - $'back\\slash' <<<"backslash"
	newins - naïve <<<"UTF-8"
	newins - "$(printf 'n%.0s' {1..200})" <<<"longer than a tar header's name field"
	truncate -s 64M "${ED}"/usr/share/odd/sparse || die
	printf 'end' | dd of="${ED}"/usr/share/odd/sparse bs=1 seek=67108861 conv=notrunc status=none || die
	keepdir /var/lib/odd
	fowners 1000:100 /var/lib/odd
	fperms 2770 /var/lib/odd
}

pkg_postinst() {
	# What Portage would drop or refuse comes last: an empty directory, a name that is not UTF-8, a file capability, and a
	# pipe, with which it makes a binary package that it refuses to unpack.
	[[ -e ${EROOT}/usr/share/odd/fifo ]] || mkfifo "${EROOT}/usr/share/odd/fifo" || die
	mkdir -p "${EROOT}/usr/share/odd/empty-directory" || die
	printf 'latin1\n' >"${EROOT}/usr/share/odd/"$'caf\xe9' || die
	setcap cap_net_bind_service+ep "${EROOT}/usr/libexec/odd/capable" || ewarn "no file capabilities here"
}

pkg_prerm() {
	rm -f "${EROOT}/usr/share/odd/"{$'caf\xe9',fifo}
	rmdir "${EROOT}/usr/share/odd/empty-directory"
}
