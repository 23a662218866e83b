set -eu
awk '{ sum += $1 } END { print sum }' numbers > total
echo "summed"
