# shellcheck shell=bash
# What every script here asks of the machine: a cache folder and Debian packages.
# Sourced, never run.

# Things that take minutes to make (kernels, initramfs) live outside the tree.
cache_dir() {
    printf '%s\n' "${STRIPEWISE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/stripewise}"
}

# Progress goes to stderr, because callers read results from stdout.
say() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }
die() { say "$*"; exit 1; }

package_installed() {
    [ "$(dpkg-query -W -f='${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

# need_packages NAME...: installs the missing ones as root, else names them and fails.
need_packages() {
    local name missing=()
    for name in "$@"; do
        package_installed "$name" || missing+=("$name")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    if [ "$(id -u)" -ne 0 ] || [ -n "${STRIPEWISE_USERNS:-}" ]; then
        die "missing packages; install them with: sudo apt-get install ${missing[*]}"
    fi
    say "installing ${missing[*]}"
    # A fresh image has no package lists, so a failed first try earns an update.
    export DEBIAN_FRONTEND=noninteractive
    apt-get install -y --no-install-recommends "${missing[@]}" >&2 ||
        { apt-get update >&2 && apt-get install -y --no-install-recommends "${missing[@]}" >&2; }
}
