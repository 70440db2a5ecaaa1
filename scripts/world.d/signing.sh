# Functions that sign with the throw-away keys of the world. To be sourced.
# shellcheck shell=bash

# new_key HOME UID: makes a key like that of Gentoo's releases: the primary key only certifies, and a subkey signs.
new_key() {
    local home=$1 uid=$2 fpr
    mkdir -p -m 700 "$home"
    gpg_in "$home" --quick-generate-key "$uid" rsa3072 cert never
    fpr=$(fingerprint "$home")
    gpg_in "$home" --quick-add-key "$fpr" rsa2048 sign never
}

# fingerprint HOME: prints the fingerprint of the primary key.
fingerprint() {
    gpg_in "$1" --with-colons --list-keys | awk -F: '$1 == "fpr" { print $10; exit }'
}

gpg_in() {
    local home=$1
    shift
    gpg --homedir "$home" --batch --yes --quiet --no-permission-warning --no-auto-check-trustdb --pinentry-mode loopback \
        --passphrase '' --digest-algo SHA512 "$@"
}

# close_key HOME: ends the agent, and lets everybody read the keys, which only tests use.
close_key() {
    GNUPGHOME=$1 gpgconf --kill all
    rm -f "$1"/S.* "$1"/*.lock "$1"/.#lk* "$1"/random_seed "$1"/*~
    chmod -R a+rX "$1"
}

# clearsign HOME FILE: replaces the text with its signed form.
clearsign() {
    gpg_in "$1" --clearsign --output "$2.signed" "$2"
    mv "$2.signed" "$2"
}

# detach HOME FILE SIGNATURE [--armor]: writes a detached signature.
detach() {
    gpg_in "$1" --detach-sign "${@:4}" --output "$3" "$2"
}
