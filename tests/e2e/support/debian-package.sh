#!/bin/sh
# debian-package.sh PACKAGE SUITE FOLDER: unpacks a package of that Debian release into FOLDER, from apt's mirror and without the packages
# that it depends on. It installs nothing.
set -eu
package=$1 suite=$2 folder=$3 here=$(cd "$(dirname "$0")" && pwd)

# The script uses its own package lists, so that the machine's lists do not change.
mirror=$("$here/debian-mirror.sh")
lists=$(mktemp -d)
trap 'rm -rf "$lists"' EXIT
mkdir -p "$folder" "$lists/lists/partial" "$lists/parts" "$lists/download"
: >"$lists/status"
echo "deb $mirror $suite main" >"$lists/sources.list"
cat >"$lists/apt.conf" <<EOF
Dir::Etc { SourceList "$lists/sources.list"; SourceParts "$lists/parts"; Preferences "$lists/none"; PreferencesParts "$lists/parts"; };
Dir::State { Lists "$lists/lists"; Status "$lists/status"; };
Dir::Cache "$lists";
Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";
Acquire::Languages "none";
APT::Sandbox::User "$(id -un)";
EOF
export APT_CONFIG="$lists/apt.conf"
apt-get -qq update
(cd "$lists/download" && apt-get -qq download "$package")
dpkg -x "$lists/download/$package"_*.deb "$folder"
