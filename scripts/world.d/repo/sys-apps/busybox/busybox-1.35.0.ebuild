# Distributed under the terms of the project that holds this file.
EAPI=8

DESCRIPTION="A shell and the commands it needs, in one program"
HOMEPAGE="https://busybox.net/"
SRC_URI="https://busybox.net/downloads/${P}.tar.bz2"

LICENSE="GPL-2"
SLOT="0"
KEYWORDS="amd64"
RESTRICT="test"

# Only a shell and a few applets, to inspect an image.
OPTIONS="BUSYBOX FEATURE_INSTALLER STATIC ASH SH_IS_ASH ASH_ECHO ASH_TEST ASH_PRINTF ASH_GETOPTS ASH_CMDCMD BASENAME CAT CHMOD CHOWN CP CUT DATE DIRNAME
	DU ECHO ENV EXPR FALSE FIND FEATURE_FIND_TYPE GREP HEAD HOSTNAME ID LN LS FEATURE_LS_TIMESTAMPS MKDIR MKNOD MOUNT MV
	PRINTENV PRINTF PS PWD READLINK REALPATH RM RMDIR SED SLEEP SORT STAT SYNC TAIL TAR TEST TEST1 TOUCH TR TRUE UMOUNT
	UNAME UNIQ WC WHICH XARGS YES"

src_configure() {
	emake allnoconfig >/dev/null
	local option
	for option in ${OPTIONS}; do
		sed -i "s/^# CONFIG_${option} is not set/CONFIG_${option}=y/" .config || die
	done
	yes '' | emake oldconfig >/dev/null
}

src_compile() {
	emake CC="${CHOST}-gcc" AR="${CHOST}-ar" STRIP=true SKIP_STRIP=y
}

src_install() {
	dobin busybox
	local applet
	[[ $(./busybox --list) == *sh* ]] || die "this busybox has no applets"
	for applet in $(./busybox --list); do
		[[ ${applet} == busybox ]] || dosym busybox /usr/bin/${applet}
	done
	dodoc AUTHORS README
}
