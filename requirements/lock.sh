#!/bin/sh
# One file an image, one for `make up`, one for development; the later ones never disagree with the first.
set -eu
compile() {
  "$UV" pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header "$@" pyproject.toml
}
compile --extra dev --output-file requirements/dev.txt # holds all but the packages for GPUs
compile --extra api --constraints requirements/dev.txt --output-file requirements/api.txt
compile --extra worker --constraints requirements/dev.txt --output-file requirements/worker.txt
compile --extra gpu --constraints requirements/dev.txt --output-file requirements/worker-gpu.txt
compile --extra local --constraints requirements/dev.txt --output-file requirements/local.txt
"$UV" pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header \
  --constraints requirements/dev.txt --output-file requirements/flower.txt requirements/flower.in
