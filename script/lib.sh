# shellcheck shell=bash disable=SC2034
# What the scripts, .ci/run and tools/cov share: packages, the build folder, the build, free ports.
# Sourced with `set -euo pipefail` on and the working directory at the top of the tree.

BUILD_PACKAGES=(make gcc g++ libc6-dev pkg-config libuv1-dev libjansson-dev libtomlplusplus-dev libxxhash-dev
	libsqlite3-dev libssl-dev uthash-dev libzmq3-dev)

say() { printf '%s\n' "$*" >&2; }
die() {
	say "${0##*/}: $*"
	exit 1
}

as_root() {
	if [ "$(id -u)" = 0 ]; then
		"$@"
	elif command -v sudo >/dev/null; then
		sudo "$@"
	else
		die "this needs root or sudo: $*"
	fi
}

# Runs a command without stdin; its output is shown only when it fails.
quietly() {
	local log code=0
	log=$(mktemp)
	"$@" </dev/null >"$log" 2>&1 || code=$?
	[ "$code" = 0 ] || cat "$log" >&2
	rm -f "$log"
	return "$code"
}

apt_get() { quietly as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=600 "$@"; }

missing_packages() {
	local package
	for package; do
		case $(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) in
		installed) ;;
		*) echo "$package" ;;
		esac
	done
}

# Installs what of the named packages is not there. apt waits for the dpkg lock but not for the one
# of its lists, so two runs at once take turns at a lock of ours.
need_packages() {
	local missing
	[ -n "$(missing_packages "$@")" ] || return 0
	command -v apt-get >/dev/null || die "not a Debian: please install $(missing_packages "$@" | xargs)"
	exec 9</var/lib/apt/lists
	flock 9
	mapfile -t missing < <(missing_packages "$@")
	if [ "${#missing[@]}" -gt 0 ]; then
		say "installing ${missing[*]}"
		compgen -G '/var/lib/apt/lists/*_Packages*' >/dev/null || apt_get update
		apt_get install --no-install-recommends "${missing[@]}" || {
			apt_get update # the lists were older than the mirror
			apt_get install --no-install-recommends "${missing[@]}"
		}
	fi
	exec 9<&-
}

# Make and its recipes would take such paths apart.
is_plain() { [[ $1 != *[[:space:]\'\"\`\$\&\(\)\;\<\>\|*?#%:\\]* ]]; }

# Whether builds can go there: what root left after a run with sudo cannot be written by the user's next one.
is_usable() {
	is_plain "$1" && mkdir -p "$1" 2>/dev/null &&
		[ -z "$(find "$1" ! -type l \( -type d -o ! -uid "$(id -u)" \) ! -writable -print -quit 2>/dev/null)" ]
}

# Exports HEADRACE_BUILD: the tree's own build/ where that can be used, else the user's cache.
choose_build() {
	if [ -z "${HEADRACE_BUILD:-}" ]; then
		HEADRACE_BUILD=$PWD/build
		if ! is_usable "$HEADRACE_BUILD"; then
			HEADRACE_BUILD=${XDG_CACHE_HOME:-${HOME:-}/.cache}/headrace
			say "$PWD/build has spaces in its path or holds what cannot be written:" \
				"building under $HEADRACE_BUILD"
		fi
	fi
	HEADRACE_BUILD=$(realpath -ms "$HEADRACE_BUILD")
	is_usable "$HEADRACE_BUILD" ||
		die "cannot build under $HEADRACE_BUILD: set HEADRACE_BUILD to a folder of your own without spaces or special characters in its path"
	export HEADRACE_BUILD
}

# One run at a time changes the build folder; children that live on must close descriptor 8.
lock_build() {
	exec 8>"$HEADRACE_BUILD/.lock"
	flock 8
}
unlock_build() { exec 8>&-; }

build() { # MAKE ARGUMENT...
	say "building $*"
	quietly make -j"$(nproc)" "$@"
}

port_is_taken() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# prepare_venv NAME LIST: a Python environment below the build folder, made again when its list changes.
prepare_venv() {
	local venv=$HEADRACE_BUILD/$1 list=$2
	cmp -s "$list" "$venv/made-from" && return
	say "making the Python environment $1"
	rm -rf "$venv"
	python3 -m venv "$venv" &&
		"$venv/bin/pip" install --quiet --disable-pip-version-check -r "$list" >&2 &&
		cp "$list" "$venv/made-from"
}
