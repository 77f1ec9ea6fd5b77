#!/bin/sh
# Builds the wheel, and tries it without any extra under each Python that uv finds or fetches:
# select, score and curate on rows of the embedded data set. try_pythons.sh [VERSION...]
set -eu
cd "$(dirname "$0")/.."
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
uv build --quiet --wheel --out-dir "$work/dist" .
head -300 data/products/train.jsonl > "$work/pool.jsonl"
for version in "${@:-3.11 3.12 3.13}"; do
  for python in $version; do
    uv venv --quiet --python "$python" "$work/$python"
    uv pip install --quiet --python "$work/$python/bin/python" "$work"/dist/*.whl
    (
      cd "$work"
      run="$work/$python/bin/thresher"
      "$run" select pool.jsonl --method random --budget 50 --out "chosen-$python" --quiet
      "$run" score pool.jsonl --features length --out "scores-$python.parquet" --quiet
      "$run" curate clean pool.jsonl --out "clean-$python" --quiet
      "$run" doctor > /dev/null
    )
    echo "Python $python: select, score and curate work without extras"
  done
done
