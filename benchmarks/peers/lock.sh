#!/bin/sh
# One environment a peer: their requirements exclude each other, and ours.
set -eu
cd "$(dirname "$0")"
for peer in seed textbook litserve bentoml ray; do
  "$UV" pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header "$@" "$peer.in" \
    --output-file "$peer.txt"
done
