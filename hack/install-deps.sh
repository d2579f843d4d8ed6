#!/bin/sh
# Installs the Debian packages that a task needs and that are missing, and for tests registers
# emulators of other platforms with the kernel; touches nothing when all is there. As root, or
# through sudo.
#
#   hack/install-deps.sh quickstart|test|lint
set -eu

# What the daemon needs to run a build, and the base image of the example.
quickstart="ca-certificates runc busybox-static"
# The C compiler serves the race detector.
lint="ca-certificates"
test="$quickstart
	gcc libc6-dev
	protobuf-compiler libprotobuf-dev
	docker-registry containerd crun mmdebstrap fuse-overlayfs skopeo umoci
	isal pigz git openssh-client e2fsprogs mount iproute2 xz-utils bzip2 zstd tar
	qemu-user-static"
# Emulators that the tests run programs of other platforms with.
emulators="aarch64 arm riscv64 ppc64le s390x"

case "${1:-}" in
quickstart) wanted=$quickstart ;;
test) wanted=$test ;;
lint) wanted=$lint ;;
*)
	echo "usage: $0 quickstart|test|lint" >&2
	exit 2
	;;
esac

if ! command -v go >/dev/null; then
	echo "$0: no go command on the PATH; see https://go.dev/doc/install" >&2
	exit 1
fi
if ! command -v apt-get >/dev/null; then
	echo "$0: not a Debian system; install by hand:" $wanted >&2
	exit 1
fi

if [ "$(id -u)" = 0 ]; then
	sudo=
elif command -v sudo >/dev/null; then
	sudo=sudo
else
	sudo=none
fi

# as_root COMMAND... runs a command as root; what needs it is said if that can't be done.
as_root() {
	if [ "$sudo" = none ]; then
		echo "$0: run as root, or by hand: $*" >&2
		exit 1
	fi
	$sudo "$@"
}

install_missing() {
	missing=
	for package in $wanted; do
		if [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" != installed ]; then
			missing="$missing $package"
		fi
	done
	[ -n "$missing" ] || return 0
	echo "installing:$missing" >&2
	as_root apt-get update -qq
	# shellcheck disable=SC2086 # a list of words
	as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing </dev/null >/dev/null
}

# Tells the kernel of the emulators, until the next boot. Where systemd runs, it has done so when the
# package was installed. Flag F, which Debian's files have, makes them work inside of containers.
register_emulators() {
	formats=/proc/sys/fs/binfmt_misc
	if [ ! -e $formats/register ]; then
		as_root mount -t binfmt_misc binfmt_misc $formats
	fi
	for emulator in $emulators; do
		# Debian has none for the machine's own platform.
		format=/usr/lib/binfmt.d/qemu-$emulator.conf
		if [ -e "$format" ] && [ ! -e "$formats/qemu-$emulator" ]; then
			as_root sh -c "cat $format >$formats/register"
		fi
	done
}

install_missing
if [ "$1" = test ]; then
	register_emulators
fi
