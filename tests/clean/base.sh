#!/bin/sh
# base.sh FOLDER SUITE PACKAGES NPM-PACKAGES: makes FOLDER a Debian of that suite with these packages (words in one argument each).
# From the mirror that this machine's apt uses, with its proxy and its certificates. Needs root and debootstrap.
set -eu
folder=$1 suite=$2 packages=$3 npm=$4

mirror=$("$(dirname "$0")/../e2e/support/debian-mirror.sh")
rm -rf "$folder.part"
mkdir -p "$(dirname "$folder")"
debootstrap --variant=minbase --include=ca-certificates "$suite" "$folder.part" "$mirror"

apt-config dump | grep -i '^Acquire::[a-z]*::Proxy' >"$folder.part/etc/apt/apt.conf.d/machine" || true
# No service is started.
printf '#!/bin/sh\nexit 101\n' >"$folder.part/usr/sbin/policy-rc.d"
chmod +x "$folder.part/usr/sbin/policy-rc.d"
# What is torn by a crash is made again.
echo force-unsafe-io >"$folder.part/etc/dpkg/dpkg.cfg.d/base"
"$(dirname "$0")/as-machine.sh" "$folder.part"
# shellcheck disable=SC2016,SC2086 # for the inner shell; words
unshare --mount --pid --fork --kill-child sh -euc '
  root=$1 packages=$2 npm=$3
  mount -t proc none "$root/proc"
  mount --rbind /dev "$root/dev"
  export DEBIAN_FRONTEND=noninteractive
  chroot "$root" apt-get -q install -y --no-install-recommends $packages
  if [ -n "$npm" ]; then chroot "$root" env -i $(cat "$root/etc/environment") PATH=/usr/bin:/bin npm install --global --no-audit --no-fund $npm; fi
  chroot "$root" apt-get clean
' base "$folder.part" "$packages" "$npm"
mv "$folder.part" "$folder"
