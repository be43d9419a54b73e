#!/bin/bash
# reproduce.sh [ARCH...]: builds the programs twice for each ARCH (default: amd64
# and arm64), here and from a copy of the source in another folder with an empty
# build cache, and fails unless both are the same bytes. Prints their SHA-256.
set -euo pipefail
cd "$(dirname "$0")/../.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
copy=$work/a/copy/elsewhere
mkdir -p "$copy" "$work/cache"
cp -r go.mod go.sum cmd crypto relay transport loadtest deploy "$copy/"

[ $# -gt 0 ] || set -- amd64 arm64
for arch; do
	deploy/scripts/build.sh "$work/here/linux-$arch" "$arch"
	GOCACHE=$work/cache "$copy/deploy/scripts/build.sh" "$work/there/linux-$arch" "$arch"
done
sums() { (cd "$1" && find . -type f -printf '%P\n' | sort | xargs sha256sum); }
sums "$work/here"
diff <(sums "$work/here") <(sums "$work/there") >&2 ||
	{ echo "reproduce.sh: a program differs that was built from the same source in another folder" >&2; exit 1; }
