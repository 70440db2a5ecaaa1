# Distributed under the terms of the project that holds this file.
EAPI=8

DESCRIPTION="The directories and accounts that everything else expects"
HOMEPAGE="https://wiki.gentoo.org/wiki/Baselayout"
S="${WORKDIR}"

LICENSE="GPL-2"
SLOT="0"
KEYWORDS="amd64"

# Directories (name and mode) that are made when the package is merged, because the kernel or the machine fills them.
MOUNT_POINTS="dev:0755 proc:0555 run:0755 sys:0555 tmp:1777 var/tmp:1777"

src_install() {
	local dir
	# Portage drops empty directories, so each that must stay gets a file.
	keepdir /etc/env.d /etc/profile.d /home /mnt /opt \
		/usr/bin /usr/include /usr/lib /usr/sbin /usr/share /usr/local/bin \
		/var/cache /var/db /var/empty /var/lib /var/log /var/spool
	diropts -m 0700
	keepdir /root
	diropts -m 0755

	# merged /usr
	for dir in bin lib sbin; do
		dosym usr/${dir} /${dir}
	done
	dosym ../run /var/run
	dosym ../run/lock /var/lock
	dosym ../proc/self/mounts /etc/mtab

	insinto /etc
	doins "${FILESDIR}"/{group,hosts,passwd,profile,services,shells}
	insopts -m 0640
	doins "${FILESDIR}"/shadow
	insopts -m 0644
	newins - os-release <<-OSRELEASE
		NAME=Gentoo
		ID=gentoo
		PRETTY_NAME="Gentoo Linux (stand-in)"
		VERSION_ID="${PV}"
	OSRELEASE
	newins - gentoo-release <<<"Gentoo Base System release ${PV}"
	newenvd - 00basic <<-ENVD
		PATH="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
		LDPATH="/usr/local/lib"
		CONFIG_PROTECT="/etc"
	ENVD
	docinto /
	newdoc - README <<<"Directories and accounts of the stand-in."
}

pkg_postinst() {
	local point
	for point in ${MOUNT_POINTS}; do
		if [[ ! -d ${EROOT}/${point%:*} ]]; then
			mkdir -m "${point#*:}" "${EROOT}/${point%:*}" || die
		fi
	done
}
