#!/bin/sh
# rootfs.sh BINARY FOLDER: makes FOLDER the root of an image that holds the program and what it needs to run, and nothing else:
# no shell, no package manager. The Dockerfile runs it, and a test, which then starts the program in that root.
set -eu
binary=$1 root=$2
user=65532

mkdir -p "$root/etc/ssl/certs" "$root/data"
cp "$binary" "$root/taskcast"
strip "$root/taskcast"

# The dynamic loader and the libraries, where the loader looks for them. Names are resolved by libc itself: glibc 2.34 or newer needs no
# library of its own for that.
ldd "$root/taskcast" | sed -n -e 's/.*=> \(\/[^ ]*\) .*/\1/p' -e 's/^[[:space:]]*\(\/[^ ]*\) .*/\1/p' | while read -r library; do
  mkdir -p "$root$(dirname "$library")"
  cp -L "$library" "$root$library"
done

# Who the numbers are, where names are looked up, and which certificates of others are believed.
printf 'root:x:0:0:root:/:/\ntaskcast:x:%s:%s:taskcast:/data:/\n' "$user" "$user" >"$root/etc/passwd"
printf 'root:x:0:\ntaskcast:x:%s:\n' "$user" >"$root/etc/group"
printf 'passwd: files\ngroup: files\nhosts: files dns\n' >"$root/etc/nsswitch.conf"
cp -L /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/ca-certificates.crt"

# The embedded store's folder is the only one that is written to.
chmod 0750 "$root/data"
if [ "$(id -u)" = 0 ]; then chown "$user:$user" "$root/data"; fi
