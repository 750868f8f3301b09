# Debian packages the scripts of this project need, by purpose, and a function that installs those that are missing.
# Read by etc/quickstart and tests/run; bash.

# To compile: libzmq with CURVE is linked from the system; ring and zstd bring C.
packages_to_build="gcc g++ make pkg-config libzmq3-dev"
# The farm itself.
packages_to_run="nix-bin postgresql git ca-certificates"
# Namespaces as machines; gcc and make are also what the demonstration builds with.
packages_for_machines="iproute2 util-linux procps bash mount"
# What only tests use: cutting machines off, clocks that jump, another mDNS implementation to compare with, a browser, unit files to check, a proxy.
packages_for_tests="nftables faketime busybox-static dbus avahi-daemon avahi-utils chromium chromium-driver curl jq systemd zsh fish nginx-light"

# as_root COMMAND...: runs it, with sudo if need be.
as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    else
        sudo "$@"
    fi
}

# require_debian: ends the script on a system without apt.
require_debian() {
    if ! command -v apt-get > /dev/null || ! command -v dpkg-query > /dev/null; then
        echo "This script installs Debian packages with apt-get, which is not here." >&2
        echo "Install the equivalents of these yourself and run it with --no-install:" >&2
        echo "  $*" >&2
        exit 1
    fi
}

# require_root_or_sudo: ends the script where root's rights cannot be had.
require_root_or_sudo() {
    if [ "$(id -u)" != 0 ]; then
        if ! command -v sudo > /dev/null; then
            echo "Namespaces and packages need root, and there is no sudo here: run this as root." >&2
            exit 1
        fi
        echo "Not root: packages and namespaces will use sudo."
    fi
}

# require_cargo: ends the script where the Rust toolchain is missing.
require_cargo() {
    if ! command -v cargo > /dev/null && [ -x "$HOME/.cargo/bin/cargo" ]; then
        PATH="$HOME/.cargo/bin:$PATH"
    fi
    if ! command -v cargo > /dev/null; then
        echo "There is no cargo on the search path: install the Rust toolchain first, see https://rustup.rs" >&2
        exit 1
    fi
}

# install_packages WHY PACKAGE...: installs what is missing and says so. Services that come with a package are not started.
install_packages() {
    local why=$1 package missing=()
    shift
    for package in "$@"; do
        if [ "$(dpkg-query --show --showformat '${db:Status-Status}' "$package" 2> /dev/null)" != installed ]; then
            missing+=("$package")
        fi
    done
    if [ ${#missing[@]} = 0 ]; then
        return
    fi
    echo "Installing ${missing[*]} ($why)."
    local policy=/usr/sbin/policy-rc.d own_policy=no status=0
    if [ ! -e "$policy" ]; then
        own_policy=yes
        printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" > /dev/null
        as_root chmod 755 "$policy"
    fi
    if ! compgen -G '/var/lib/apt/lists/*Packages*' > /dev/null; then
        as_root apt-get update --quiet
    fi
    if ! as_root env DEBIAN_FRONTEND=noninteractive apt-get install --yes --quiet --no-install-recommends "${missing[@]}"; then
        # Perhaps the lists are old.
        as_root apt-get update --quiet &&
            as_root env DEBIAN_FRONTEND=noninteractive \
                apt-get install --yes --quiet --no-install-recommends "${missing[@]}" || status=$?
    fi
    if [ $own_policy = yes ]; then
        as_root rm -f "$policy"
    fi
    return $status
}
