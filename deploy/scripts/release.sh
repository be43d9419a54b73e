#!/bin/bash
# release.sh DIR VERSION [ARCH...]: puts into DIR, for each ARCH (default: amd64
# and arm64), the static programs, a Debian package of the relay, and
# SHA256SUMS of all. The same source and VERSION give the same bytes: times are
# that of the last commit, or SOURCE_DATE_EPOCH. Needs go and dpkg-deb.
set -euo pipefail
[ $# -ge 2 ] || { sed -n '2,5s/^# \{0,1\}//p' "$0"; exit 2; }
mkdir -p "$1"
out=$(cd "$1" && pwd)
version=$2
shift 2
[ $# -gt 0 ] || set -- amd64 arm64
[[ $version =~ ^[0-9][0-9A-Za-z.+~-]*$ ]] || { echo "release.sh: $version is no version: write 1.2.3" >&2; exit 2; }
cd "$(dirname "$0")/.."
: "${SOURCE_DATE_EPOCH:=$(git log -1 --format=%ct)}"
export SOURCE_DATE_EPOCH
umask 022
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# package makes the relay's Debian package out of the programs for an ARCH.
package() {
	local root=$work/root-$1
	install -D -m 0755 "$work/$1/blindrelay" "$root/usr/bin/blindrelay"
	install -d "$root/lib/systemd/system"
	sed 's,/usr/local/bin/,/usr/bin/,' systemd/blindrelay.service >"$root/lib/systemd/system/blindrelay.service"
	install -D -m 0644 systemd/journald@blindrelay.conf "$root/etc/systemd/journald@blindrelay.conf"
	install -D -m 0640 blindrelay.env.example "$root/etc/blindrelay/blindrelay.env"
	install -D -m 0644 sysctl/99-blindrelay.conf "$root/usr/lib/sysctl.d/99-blindrelay.conf"
	install -D -m 0644 ../LICENSE "$root/usr/share/doc/blindrelay/copyright"
	install -m 0644 README.md SIZING.md UPGRADING.md ../relay/PRIVACY.md "$root/usr/share/doc/blindrelay/"
	install -d "$root/DEBIAN"
	sed -e "s/@VERSION@/$version/" -e "s/@ARCH@/$1/" debian/control >"$root/DEBIAN/control"
	install -m 0644 debian/conffiles "$root/DEBIAN/"
	install -m 0755 debian/postinst debian/prerm debian/postrm "$root/DEBIAN/"
	find "$root" -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +
	dpkg-deb --root-owner-group -Zxz -z6 --threads-max=1 --build "$root" "$out/blindrelay_${version}_$1.deb" >/dev/null
}

for arch; do
	scripts/build.sh "$work/$arch" "$arch"
	for program in "$work/$arch"/*; do
		install -m 0755 "$program" "$out/$(basename "$program")-$version-linux-$arch"
	done
	package "$arch"
done
cd "$out"
sha256sum -- *-"$version"-linux-* *_"$version"_*.deb >SHA256SUMS
