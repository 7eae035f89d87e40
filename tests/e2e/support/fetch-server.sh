#!/bin/sh
# fetch-server.sh SERVER FOLDER [SUITE]: makes FOLDER/SERVER, which runs redis-server, nginx, haproxy or another program.
# The machine's own if there is one; else Debian's package with the libraries that are missing, unpacked into FOLDER/root/SERVER: nothing is
# installed and no service is started. With SUITE it is the package of that Debian, without libraries, from the mirror of the machine's apt.
set -eu
server=$1 folder=$2 suite=${3:-} here=$(cd "$(dirname "$0")" && pwd)

found=$(PATH="$PATH:/usr/sbin:/usr/local/sbin" command -v "$server" || true)
if [ -n "$found" ]; then
  ln -sf "$found" "$folder/$server"
  exit 0
fi
if ! command -v apt-get >/dev/null; then
  echo "no $server here, and no apt-get to fetch one: install it" >&2
  exit 1
fi

root=root/$server
mkdir -p "$folder/$root/download"
cd "$folder"
folder=$(pwd)
lists=
if [ -n "$suite" ]; then
  # Lists of its own: the machine's stay as they are.
  mirror=$("$here/debian-mirror.sh")
  lists=$(mktemp -d)
  trap 'rm -rf "$lists"' EXIT
  mkdir -p "$lists/lists/partial" "$lists/parts"
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
fi
missing() { apt-get -qq -o Debug::NoLocking=1 --no-install-recommends --print-uris -y install "$server" 2>/dev/null | sed -n "s/^'[^']*' \([^_]*\)_.*/\1/p"; }
if [ -n "$suite" ]; then
  packages=$server
else
  # Package lists may be older than the packages on the mirror, or not be there at all.
  if [ "$(id -u)" = 0 ]; then apt-get -qq update || true; fi
  packages=$(missing)
fi
if [ -z "$packages" ]; then
  echo "apt-get knows no package $server: run apt-get update, or install it" >&2
  exit 1
fi
# shellcheck disable=SC2086 # one word each
(cd "$root/download" && apt-get -qq -o APT::Sandbox::User="$(id -un)" download $packages)
for package in $packages; do dpkg -x "$root/download/$package"_*.deb "$root"; done
rm -r "$root/download"
program=$(find "$root/usr" -path "*bin/$server" | head -n 1)
libraries=$(find "$root" -name '*.so*' -exec dirname {} + | sort -u | sed "s|^|$folder/|" | paste -sd:)
cat >"$server.part" <<EOF
#!/bin/sh
LD_LIBRARY_PATH='$libraries' exec '$folder/$program' "\$@"
EOF
chmod +x "$server.part"
case $server in kubectl) show="version --client" ;; *) show=-v ;; esac
# shellcheck disable=SC2086 # two words
"./$server.part" $show >/dev/null 2>&1
mv "$server.part" "$server"
