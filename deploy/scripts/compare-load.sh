#!/bin/bash
# Compares this tree with the figures of an earlier one:
#
#   deploy/scripts/compare-load.sh OLD.json...
#
# Runs the nightly scenario as often as there are old reports, on this machine,
# and prints the figures side by side with what is noise. Make the old reports
# on the same machine, from the release's tree, with
#
#   go run ./cmd/blindload run --self --scenario loadtest/testdata/nightly.yaml --json OLD.json
set -euo pipefail
[ $# -gt 0 ] || { sed -n '2,11s/^# \{0,1\}//p' "$0"; exit 2; }
old=()
for f in "$@"; do
	old+=("$(realpath "$f")")
done
cd "$(dirname "$0")/../.."

tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
go build -o "$tmp/blindload" ./cmd/blindload
new=()
for i in "${!old[@]}"; do
	# Exit codes 1 and 3 are verdicts on a run whose figures still count here.
	"$tmp/blindload" run --self --scenario loadtest/testdata/nightly.yaml --json "$tmp/$i.json" >/dev/null ||
		[ -s "$tmp/$i.json" ]
	new+=("$tmp/$i.json")
done
also=() with=()
for f in "${old[@]:1}"; do also+=(--also "$f"); done
for f in "${new[@]:1}"; do with+=(--with "$f"); done
"$tmp/blindload" compare "${old[0]}" "${new[0]}" "${also[@]}" "${with[@]}"
