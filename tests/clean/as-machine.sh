#!/bin/sh
# as-machine.sh FOLDER: in the Debian below FOLDER, registries are reached as on this machine: names, certificates, proxies, and the
# settings of cargo, npm and pip. Nobody's home is written to.
set -eu
root=$1
for file in /etc/resolv.conf /etc/hosts /etc/ssl/certs/ca-certificates.crt; do
  if [ -e "$file" ]; then cp -L --remove-destination "$file" "$root$file"; fi
done
give() { if [ -e "$1" ]; then mkdir -p "$(dirname "$root$2")" && cp -L "$1" "$root$2"; fi; }
give "${CARGO_HOME:-$HOME/.cargo}/config.toml" /.cargo/config.toml
give "${NPM_CONFIG_USERCONFIG:-$HOME/.npmrc}" /etc/npmrc
give /etc/pip.conf /etc/pip.conf

# Which certificates, which proxies, which registries: pam_env and `env` read it.
env | grep -iE '^([a-z]+_proxy|SSL_CERT_(FILE|DIR)|NODE_EXTRA_CA_CERTS|CURL_CA_BUNDLE|GIT_SSL_CAINFO|REQUESTS_CA_BUNDLE|PIP_(CERT|INDEX_URL|PROXY)|CARGO_(HTTP|REGISTRIES|SOURCE|NET)_[a-z_]+|NPM_CONFIG_(REGISTRY|CAFILE|[a-z]*PROXY))=' |
  sort >"$root/etc/environment" || true
