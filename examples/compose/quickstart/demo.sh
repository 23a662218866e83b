#!/bin/sh
# Brings the quickstart example up with the given orchestra command, looks at it and takes it down.
set -eu
orchestra=$1
here=$(cd "$(dirname "$0")" && pwd)
case $orchestra in */*) orchestra=$(cd "$(dirname "$orchestra")" && pwd)/$(basename "$orchestra") ;; esac
say() { printf '\n\033[1m$ orchestra %s\033[0m\n' "$*"; }
run() { say "$@"; "$orchestra" "$@"; }
cd "$here"
run image from-host quickstart-python --bin python3 --bin sh
trap '"$orchestra" down -v >/dev/null 2>&1 || true' EXIT
run up -d --wait
run ps
port=$("$orchestra" port front 8000); port=${port##*:}
printf '\n\033[1m$ curl http://127.0.0.1:%s/\033[0m\n' "$port"
curl -sSf "http://127.0.0.1:$port/"
curl -sSf -d 'four words of text' "http://127.0.0.1:$port/notes"
run logs --tail 5 app worker
trap - EXIT
run down -v
