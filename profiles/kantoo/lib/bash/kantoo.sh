# Functions for the steps of this tree.

# Makes packages in the directory $1, one for each binary package of the build that is installed. Portage keeps its own in the format
# gpkg, and eit reads only the older one, xpak: CATEGORY/NAME-VERSION.tbz2.
make_xpak_packages() {
    local file category name atoms=()
    for file in /var/cache/binpkgs/*/*/*.gpkg.tar; do
        category=${file%/*/*} category=${category##*/}
        name=${file##*/} name=${name%-*.gpkg.tar}
        if [ -d "/var/db/pkg/$category/$name" ]; then atoms+=("=$category/$name"); fi
    done
    PKGDIR=$1 BINPKG_FORMAT=xpak BINPKG_COMPRESS=bzip2 FEATURES=-binpkg-multi-instance \
        quickpkg --include-config=y --umask=0022 "${atoms[@]}"
}
