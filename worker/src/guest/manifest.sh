#!/bin/sh
# Lists what is installed on a builder, in the image itself, and prints the SHA-256 of the list. Prints nothing where the
# system has no dpkg.
set -eu
umask 022
command -v dpkg-query >/dev/null || exit 0
folder=${ROOT:-}/usr/share/imagewright
mkdir -p "$folder"
# shellcheck disable=SC2016 # the variables are dpkg's
dpkg-query --show --showformat='${db:Status-Abbrev} ${Package} ${Architecture} ${Version}\n' >"$folder/packages.new"
sed -n 's/^ii *//p' "$folder/packages.new" | LC_ALL=C sort >"$folder/packages"
rm "$folder/packages.new"
sha256sum <"$folder/packages" | cut -c 1-64
