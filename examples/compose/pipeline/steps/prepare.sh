set -eu
seq 1 "$1" > numbers
echo "prepared $(wc -l < numbers) numbers"
