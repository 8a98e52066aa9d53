#!/bin/sh
# Makes ca.pem, cert.pem and key.pem in DIR (default: certificates, beside this script), for dask's TLS.
#
#     docker/certificates.sh [DIR [DAYS]]
#
# Scheduler, workers and clients share them: whoever holds key.pem may run code on all of them, so it must
# not leave your machines. The authority's own key is thrown away; to replace or renew, run this again.
set -eu

dir=${1:-$(dirname "$0")/certificates}
days=${2:-825}
if [ -e "$dir/key.pem" ]; then
    echo "$dir/key.pem exists; remove it first if running schedulers and workers need it no more" >&2
    exit 2
fi
umask 077
mkdir -p "$dir"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

new_key() {
    openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1"
}

new_key "$work/ca-key.pem"
openssl req -x509 -new -key "$work/ca-key.pem" -sha256 -days "$days" -subj "/CN=embank authority" \
    -addext "basicConstraints=critical,CA:TRUE,pathlen:0" -addext "keyUsage=critical,keyCertSign" \
    -out "$work/ca.pem"
new_key "$work/key.pem"
openssl req -new -key "$work/key.pem" -subj "/CN=embank" -out "$work/request.pem"
printf '%s\n' "basicConstraints=critical,CA:FALSE" "keyUsage=critical,digitalSignature" \
    "extendedKeyUsage=serverAuth,clientAuth" "subjectAltName=DNS:embank" \
    "subjectKeyIdentifier=hash" "authorityKeyIdentifier=keyid" > "$work/extensions"
openssl x509 -req -in "$work/request.pem" -CA "$work/ca.pem" -CAkey "$work/ca-key.pem" -CAcreateserial \
    -sha256 -days "$days" -extfile "$work/extensions" -out "$work/cert.pem" 2> /dev/null
cp "$work/ca.pem" "$work/cert.pem" "$work/key.pem" "$dir/"
echo "$dir: ca.pem, cert.pem, key.pem, good for $days days" >&2
