#!/bin/bash
# image.sh [NAME]: builds the relay of this checkout as a static binary and an
# image around it, with buildah and without any registry. The same source gives
# the same binary and the same image.
set -euo pipefail
cd "$(dirname "$0")/../.."
name=${1:-blindrelay:release}

context=$(mktemp -d)
trap 'rm -rf "$context"' EXIT
mkdir -m 0755 "$context/rootfs"
mkdir -m 0700 "$context/rootfs/state"
deploy/scripts/build.sh "$context/programs"
install -m 0755 "$context/programs/blindrelay" "$context/rootfs/"
buildah build --timestamp 0 \
	-f deploy/Dockerfile.release -t "$name" "$context"
