#!/bin/sh
# From a clone to the first chosen rows, timed: try_fresh.sh REPOSITORY FILE
# Clones the repository into a new folder, installs it without extras, and selects 10 % of a file.
set -eu
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
began=$(date +%s)
git clone --quiet "$1" "$work/clone"
python3 -m venv "$work/env"
"$work/env/bin/pip" install --quiet "$work/clone"
echo "installed after $(($(date +%s) - began)) s"
export THRESHER_CACHE="$work/cache"
first=$(date +%s)
time "$work/env/bin/thresher" select "$2" --budget 10% --method facility-location --encoder static --out "$work/chosen"
echo "chosen after $(($(date +%s) - began)) s, $(($(date +%s) - first)) s of them by thresher"
