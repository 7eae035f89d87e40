#!/bin/sh
# fetch-server.sh SERVER FOLDER [SUITE]: creates FOLDER/SERVER, which runs redis-server, nginx, haproxy or another program.
# It uses the machine's own program when there is one. Else it unpacks Debian's package and missing libraries into FOLDER/root/SERVER; it
# installs nothing and starts no service. With SUITE, it uses the package of that Debian release, without libraries, from apt's mirror.
set -eu
server=$1 folder=$2 suite=${3:-} here=$(cd "$(dirname "$0")" && pwd)

found=$(PATH="$PATH:/usr/sbin:/usr/local/sbin" command -v "$server" || true)
if [ -n "$found" ]; then
  ln -sf "$found" "$folder/$server"
  exit 0
fi
if ! command -v apt-get >/dev/null; then
  echo "$server is not installed, and there is no apt-get to fetch it: install $server" >&2
  exit 1
fi

root=root/$server
mkdir -p "$folder/$root/download"
cd "$folder"
folder=$(pwd)
missing() { apt-get -qq -o Debug::NoLocking=1 --no-install-recommends --print-uris -y install "$server" 2>/dev/null | sed -n "s/^'[^']*' \([^_]*\)_.*/\1/p"; }
if [ -n "$suite" ]; then
  "$here/debian-package.sh" "$server" "$suite" "$root"
else
  # The machine's package lists may be outdated or missing.
  if [ "$(id -u)" = 0 ]; then apt-get -qq update || true; fi
  packages=$(missing)
  if [ -z "$packages" ]; then
    echo "apt-get knows no package $server: run apt-get update, or install it" >&2
    exit 1
  fi
  # shellcheck disable=SC2086 # one word each
  (cd "$root/download" && apt-get -qq -o APT::Sandbox::User="$(id -un)" download $packages)
  for package in $packages; do dpkg -x "$root/download/$package"_*.deb "$root"; done
fi
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
