#!/bin/bash
# build.sh DIR [ARCH]: builds blindrelay, blindlink and blindload of this
# checkout into DIR, as static programs for Linux on ARCH (default: this
# machine's). The same source gives the same bytes, in whatever folder, on
# whatever machine: nothing of it gets in, the settings of Go are given here,
# and the version of Go is that of go.mod, which go fetches if it has another.
set -euo pipefail
[ $# -ge 1 ] || { sed -n '2,6s/^# \{0,1\}//p' "$0"; exit 2; }
mkdir -p "$1"
dir=$(cd "$1" && pwd)
cd "$(dirname "$0")/../.."

# Where modules and results are kept is the machine's; all else it may have set
# for Go does not count.
for kept in GOPROXY GONOPROXY GOPRIVATE GOSUMDB GONOSUMDB GOMODCACHE GOCACHE; do
	export "$kept=$(go env "$kept")"
done
unset GOFLAGS GOEXPERIMENT GOFIPS140
export GOENV=off GOWORK=off GOOS=linux GOARCH=${2:-$(go env GOHOSTARCH)} GOAMD64=v1 GOARM64=v8.0
GOTOOLCHAIN=go$(sed -n 's/^go //p' go.mod)
export GOTOOLCHAIN
CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags=-buildid= -o "$dir/" ./cmd/blindrelay ./cmd/blindlink ./cmd/blindload
