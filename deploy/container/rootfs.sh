#!/bin/sh
# rootfs.sh BINARY FOLDER: makes FOLDER the root filesystem of an image. It holds only the program and what the program needs to run: no
# shell and no package manager. The Dockerfile runs this script. A test runs it too, and starts the program in that root.
set -eu
binary=$1 root=$2
user=65532

mkdir -p "$root/etc/ssl/certs" "$root/data"
cp "$binary" "$root/taskcast"
strip "$root/taskcast"

# The dynamic loader and the libraries, at the paths where the loader looks for them. libc itself resolves host names: glibc 2.34 or newer
# needs no separate library for that.
ldd "$root/taskcast" | sed -n -e 's/.*=> \(\/[^ ]*\) .*/\1/p' -e 's/^[[:space:]]*\(\/[^ ]*\) .*/\1/p' | while read -r library; do
  mkdir -p "$root$(dirname "$library")"
  cp -L "$library" "$root$library"
done

# The names of the user and group ids, the sources for host names, and the trusted certificate authorities.
printf 'root:x:0:0:root:/:/\ntaskcast:x:%s:%s:taskcast:/data:/\n' "$user" "$user" >"$root/etc/passwd"
printf 'root:x:0:\ntaskcast:x:%s:\n' "$user" >"$root/etc/group"
printf 'passwd: files\ngroup: files\nhosts: files dns\n' >"$root/etc/nsswitch.conf"
cp -L /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/ca-certificates.crt"

# The program writes only to the folder of the embedded store.
chmod 0750 "$root/data"
if [ "$(id -u)" = 0 ]; then chown "$user:$user" "$root/data"; fi
