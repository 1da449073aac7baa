#!/usr/bin/env bash
# Builds the functions for Lambda: target/lambda/<function>.zip, one each, with what it is and how large.
#
#   infra/package.sh [x86_64|arm64]
#
# The same sources and toolchain give the same bytes, and no folder of this machine is in them: a deployment changes only what changed. x86_64
# is built by plain cargo; another processor needs its Rust target, and its linker or cargo-lambda (`pip install cargo-lambda`).
set -euo pipefail
cd "$(dirname "$0")/.."

# The C library of Lambda's provided.al2023.
newest_glibc=2.34

arch="${1:-x86_64}"
here=$(uname -m | sed 's/aarch64/arm64/')
case "$arch" in
  x86_64) target=x86_64-unknown-linux-gnu ;;
  arm64) target=aarch64-unknown-linux-gnu ;;
  *) echo "There is no Lambda processor $arch: x86_64 or arm64." >&2; exit 2 ;;
esac
functions=$(cd functions && ls)
# Where things lie on this machine is not in what is built.
case "${RUSTFLAGS:-}" in
  *--remap-path-prefix*) ;;
  *) export RUSTFLAGS="${RUSTFLAGS:-} --remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=/cargo --remap-path-prefix=$PWD=/pfsession" ;;
esac
packages=$(for f in $functions; do printf -- '-p %s ' "$f"; done)

if [ "$arch" = "$here" ]; then
  # With `pfsession`, which who deploys needs for tokens: built in one go, they share what they are made of.
  # shellcheck disable=SC2086
  cargo build --release --bins $packages -p pfsession
  built="${CARGO_TARGET_DIR:-target}/release"
elif ! [ -d "$(rustc --print sysroot)/lib/rustlib/$target" ]; then
  echo "This toolchain has no $target. Get it: rustup target add $target" >&2
  exit 1
elif command -v cargo-lambda >/dev/null; then
  # shellcheck disable=SC2086
  cargo lambda build --release --target "$target.$newest_glibc" $packages
  built="${CARGO_TARGET_DIR:-target}/lambda"
else
  # shellcheck disable=SC2086
  cargo build --release --bins --target "$target" $packages
  built="${CARGO_TARGET_DIR:-target}/$target/release"
fi

python3 - "$built" target/lambda "$newest_glibc" $functions <<'PYTHON'
import hashlib, os, re, subprocess, sys, zipfile

built, out, newest, *functions = sys.argv[1:]
os.makedirs(out, exist_ok=True)
newest = tuple(map(int, newest.split(".")))
for function in functions:
    program = os.path.join(built, function)
    if os.path.isdir(program):  # as cargo-lambda has it
        program = os.path.join(program, "bootstrap")
    # `strip` of the machine's own binutils; for another processor the build's profile has to do.
    bootstrap = os.path.join(out, function + ".bootstrap")
    if subprocess.run(["strip", "-s", "-o", bootstrap, program], capture_output=True).returncode:
        with open(program, "rb") as source, open(bootstrap, "wb") as target:
            target.write(source.read())
    with open(bootstrap, "rb") as file:
        code = file.read()
    os.remove(bootstrap)
    for folder in (os.getcwd(), os.environ.get("CARGO_HOME") or os.path.expanduser("~/.cargo")):
        if folder.encode() + b"/" in code:
            sys.exit(f"{function} names the folder {folder}, so that another folder would give other bytes.")
    needs = max(tuple(map(int, v.split(b"."))) for v in re.findall(rb"GLIBC_(2\.[0-9]+)", code))
    if needs > newest:
        sys.exit(f"{function} needs glibc {'.'.join(map(str, needs))}, and Lambda has {'.'.join(map(str, newest))}. "
                 "Build it on an older system, or with cargo-lambda.")
    entry = zipfile.ZipInfo("bootstrap", (1980, 1, 1, 0, 0, 0))
    entry.external_attr = 0o100755 << 16
    entry.create_system = 3
    path = os.path.join(out, function + ".zip")
    with zipfile.ZipFile(path + ".new", "w") as archive:
        archive.writestr(entry, code, zipfile.ZIP_DEFLATED, 9)
    os.replace(path + ".new", path)
    with open(path, "rb") as file:
        zipped = file.read()
    print(f"{path}  {len(code) / 1e6:5.1f} MB, zipped {len(zipped) / 1e6:4.1f} MB  sha256 {hashlib.sha256(zipped).hexdigest()[:16]}")
PYTHON
