#!/bin/sh
# Writes .env for docker-compose.yml, with an API key and Grafana's password made up. The key is
# shown once: the file has its SHA-256 only. What is there already is never written over.
#     deploy/make_env.sh [FILE]
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
file=${1:-$root/.env}
if [ -e "$file" ]; then
    echo "$file is there already; remove it first to have new secrets" >&2
    exit 1
fi
random() { od -An -N24 -tx1 /dev/urandom | tr -d ' \n'; }
key=$(random)
hash=$(printf %s "$key" | sha256sum | cut -d' ' -f1)
umask 077
cat >"$file" <<END
ONEBAR_API_KEYS=read+write+admin:$hash
GRAFANA_PASSWORD=$(random)
END
echo "API key (read, write, admin; it is shown only now): $key"
echo "Grafana: user admin, GRAFANA_PASSWORD in $file"
