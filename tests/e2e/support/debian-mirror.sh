#!/bin/sh
# debian-mirror.sh: prints TASKCAST_DEBIAN_MIRROR, or else the Debian mirror that this machine's apt uses.
set -eu
# shellcheck disable=SC2016
mirror=${TASKCAST_DEBIAN_MIRROR:-$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Component: main' | grep -v security | sort | head -n 1)}
[ -n "$mirror" ] || { echo "apt has no Debian mirror configured: set TASKCAST_DEBIAN_MIRROR" >&2; exit 1; }
echo "$mirror"
