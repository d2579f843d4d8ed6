#!/bin/sh
# Runs a command of buildctl with a daemon of its own, which ends with it:
#
#   buildctl-daemonless.sh build --frontend=dockerfile.v0 --local=context=. --local=dockerfile=.
#
# Environment, with what is used otherwise:
#   BUILDCTL=buildctl BUILDKITD=buildkitd  the programs
#   BUILDKITD_FLAGS=                       more flags of the daemon, split at blanks
#   ROOTLESSKIT=rootlesskit                what the daemon is started with if the user is not root
#   BUILDCTL_CONNECT_RETRIES_MAX=10        how often to look whether the daemon is there
set -eu

: "${BUILDCTL=buildctl}"
: "${BUILDKITD=buildkitd}"
: "${BUILDKITD_FLAGS=}"
: "${ROOTLESSKIT=rootlesskit}"
: "${BUILDCTL_CONNECT_RETRIES_MAX=10}"

tmp=$(mktemp -d /tmp/buildctl-daemonless.XXXXXX)

end() {
	code=$?
	trap - EXIT
	if [ -s "$tmp/pid" ]; then
		pid=$(cat "$tmp/pid")
		kill "$pid" 2>/dev/null || true
		wait "$pid" || true
	fi
	rm -rf "$tmp"
	exit "$code"
}
trap end EXIT
# Not all shells do what is for EXIT when a signal ends them.
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

start_daemon() {
	if [ "$(id -u)" = 0 ]; then
		addr=unix:///run/buildkit/buildkitd.sock
		set -- "$BUILDKITD"
	else
		addr=unix://$XDG_RUNTIME_DIR/buildkit/buildkitd.sock
		set -- "$ROOTLESSKIT" "$BUILDKITD"
	fi
	# shellcheck disable=SC2086 # flags are split at blanks
	"$@" $BUILDKITD_FLAGS --addr="$addr" >"$tmp/log" 2>&1 &
	echo $! >"$tmp/pid"
	echo "$addr" >"$tmp/addr"
}

await_daemon() {
	tries=0
	until "$BUILDCTL" --addr="$addr" debug workers >/dev/null 2>&1; do
		tries=$((tries + 1))
		if [ "$tries" -ge "$BUILDCTL_CONNECT_RETRIES_MAX" ] || ! kill -0 "$(cat "$tmp/pid")" 2>/dev/null; then
			echo "could not connect to $addr after $tries trials" >&2
			echo "========== log ==========" >&2
			cat "$tmp/log" >&2
			exit 1
		fi
		ms=$((100 + 20 * tries))
		sleep "$((ms / 1000)).$(printf %03d $((ms % 1000)))"
	done
}

start_daemon
await_daemon
"$BUILDCTL" --addr="$addr" "$@"
