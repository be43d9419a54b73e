#!/bin/bash
# check.sh: checks the files of deploy/ with the tools that read them, as far as
# a machine can that has no Docker, reaches no image registry and does not run
# systemd. Needs go, systemd-analyze, promtool, dpkg, buildah, busybox, and root
# for buildah's chroot isolation.
set -euo pipefail
cd "$(dirname "$0")/.."

compose_check=github.com/compose-spec/compose-go/v2/cmd@v2.16.2

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# buildah works without overlay mounts and without touching the machine's images.
export STORAGE_DRIVER=vfs CONTAINERS_STORAGE_CONF=$work/storage.conf BUILDAH_ISOLATION=chroot
printf '[storage]\ndriver = "vfs"\ngraphroot = "%s"\nrunroot = "%s"\n' "$work/graph" "$work/run" >"$CONTAINERS_STORAGE_CONF"

# quietly runs a command and shows what it said only if it fails.
quietly() {
	local status
	set +e
	(set -e; "$@") >"$work/said" 2>&1
	status=$?
	set -e
	[ "$status" = 0 ] || { cat "$work/said"; return 1; }
}

digest() { buildah inspect --type image --format '{{.FromImageDigest}}' "$1"; }

# unit verifies the service in a root directory of its own. systemd-analyze
# exits 0 on keys that it does not know, so it must not say a word.
unit() {
	local root=$work/root said
	mkdir -p "$root/usr/local/bin" "$root/etc/systemd/system" "$root/usr/lib/systemd"
	cp -r /usr/lib/systemd/system "$root/usr/lib/systemd/" 2>/dev/null || cp -r /lib/systemd/system "$root/usr/lib/systemd/"
	cp systemd/blindrelay.service "$root/etc/systemd/system/"
	install -m 0755 "$work/blindrelay" "$root/usr/local/bin/blindrelay"
	install -D -m 0755 "$work/blindrelay" "$root/bin/kill" # that of ExecReload=
	said=$(systemd-analyze verify --man=no --root="$root" blindrelay.service 2>&1) || said=${said:-"systemd-analyze verify failed"}
	[ -z "$said" ] || { echo "$said"; return 1; }
	systemd-analyze security --offline=true --threshold=20 --no-pager systemd/blindrelay.service | tail -n 1
}

# image runs an image's relay as the image's user in the image's files, until it
# listens, and ends it in order.
image() {
	local container group
	container=$(buildah from --pull-never "$1")
	buildah run "$container" -- /blindrelay version
	set -m # a process group of its own, to find the relay in
	buildah run --env BLINDRELAY_LISTEN=127.0.0.1:0 --env BLINDRELAY_OPS=127.0.0.1:0 "$container" -- \
		/blindrelay serve >"$work/line" 2>"$work/stderr" &
	group=$!
	set +m
	for _ in $(seq 100); do
		grep '#' "$work/line" && break
		sleep 0.1
	done
	pkill -TERM -x -g "$group" blindrelay || kill -TERM -- "-$group" || true
	wait "$group" || { echo "the relay in image $1 failed:"; cat "$work/stderr"; return 1; }
	buildah rm "$container" >/dev/null
}

# from_source builds the multi-stage Dockerfile. No registry is needed: an image
# with this machine's Go and a busybox stands in for golang.
from_source() {
	local base name version
	name=$(sed -n 's/^FROM \(.*\):.* AS build$/\1/p' Dockerfile)
	version=$(sed -n 's/^ARG GO_VERSION=//p' Dockerfile)
	base=$(buildah from scratch)
	buildah copy --quiet "$base" "$(command -v busybox)" /bin/busybox >/dev/null
	buildah run "$base" -- /bin/busybox mkdir -p /tmp /etc
	buildah run "$base" -- /bin/busybox --install -s /bin
	buildah config --env PATH=/usr/local/go/bin:/bin --env GOPROXY=file:///proxy --env GOTOOLCHAIN=local --env GOFLAGS=-buildvcs=false "$base"
	buildah commit --quiet --rm "$base" "$name:$version" >/dev/null
	buildah build --quiet --pull-never --timestamp 0 -f Dockerfile -t blindrelay:source \
		-v "$(go env GOROOT):/usr/local/go:ro" -v "$(go env GOMODCACHE)/cache/download:/proxy:ro" ..
}

# debian makes the package twice, in two places, installs it into a directory
# and takes it out again.
debian() {
	local root=$work/dpkg deb copy=$work/copy said
	SOURCE_DATE_EPOCH=1700000000 scripts/release.sh "$work/first" 0.0.1 "$(go env GOARCH)"
	mkdir -p "$copy"
	(cd .. && cp -r LICENSE go.mod go.sum cmd crypto relay transport loadtest deploy "$copy/")
	SOURCE_DATE_EPOCH=1700000000 "$copy/deploy/scripts/release.sh" "$work/second" 0.0.1 "$(go env GOARCH)"
	diff -r "$work/first" "$work/second" || { echo "a release depends on the folder it is made in"; return 1; }
	deb=$(echo "$work"/first/*.deb)
	mkdir -p "$root/var/lib/dpkg/updates" "$root/var/lib/dpkg/info"
	: >"$root/var/lib/dpkg/status"
	dpkg --root="$root" --force-script-chrootless --no-triggers -i "$deb" >"$work/said" 2>&1 || { cat "$work/said"; return 1; }
	"$root/usr/bin/blindrelay" version
	grep -q '^ExecStart=/usr/bin/blindrelay serve$' "$root/lib/systemd/system/blindrelay.service"
	# The files' places are the ones that the files name.
	for said in /etc/blindrelay/blindrelay.env /etc/systemd/journald@blindrelay.conf /usr/lib/sysctl.d/99-blindrelay.conf; do
		[ -f "$root$said" ] || { echo "the package has no $said"; return 1; }
	done
	dpkg --root="$root" --force-script-chrootless --no-triggers --purge blindrelay >"$work/said" 2>&1 || { cat "$work/said"; return 1; }
	said=$(find "$root" -path "$root/var" -prune -o -type f -print)
	[ -z "$said" ] || { echo "left behind: $said"; return 1; }
}

echo "systemd unit"
CGO_ENABLED=0 go build -o "$work/blindrelay" ../cmd/blindrelay
unit

echo "Prometheus"
promtool check config prometheus/prometheus.yml
promtool test rules prometheus/alerts_test.yml

echo "compose file"
go run "$compose_check" compose.yaml >/dev/null

echo "Kubernetes"
(cd kubernetes && go vet . && go test .)

echo "Debian package"
debian

echo "image around a static binary"
quietly scripts/image.sh blindrelay:release
image blindrelay:release

echo "image from source"
quietly from_source
image blindrelay:source
release=$(digest blindrelay:release)
[ -n "$release" ] && [ "$release" = "$(digest blindrelay:source)" ] ||
	{ echo "the two images differ, although both are made from this source"; exit 1; }
