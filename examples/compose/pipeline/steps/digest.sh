set -eu
sha256sum numbers > digest
echo "hashed"
