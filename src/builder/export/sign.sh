set -e
mkdir -p /run/lock
mkdir -m 700 /run/keys
for key in "$1"/*; do case "$key" in *.lock|*/S.*|*~) ;; *) ln -s "$key" /run/keys/ ;; esac; done
directory=$2; fingerprint=$3; shift 3
[ $# -gt 0 ] || exec gpg --homedir /run/keys --batch --no-tty --armor --output "$directory/certificate" --export "$fingerprint"
for package; do gpkg-sign "$directory/$package"; done
