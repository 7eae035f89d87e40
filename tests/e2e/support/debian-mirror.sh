#!/bin/sh
# debian-mirror.sh: the mirror of Debian that this machine's apt uses, or TASKCAST_DEBIAN_MIRROR.
set -eu
# shellcheck disable=SC2016
mirror=${TASKCAST_DEBIAN_MIRROR:-$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Component: main' | grep -v security | sort | head -n 1)}
[ -n "$mirror" ] || { echo "apt names no mirror: set TASKCAST_DEBIAN_MIRROR" >&2; exit 1; }
echo "$mirror"
