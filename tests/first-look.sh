#!/usr/bin/env bash
# The README's first commands as a newcomer types them: an empty home, empty caches, nothing before. Prints where the time goes.
set -euo pipefail
cd "$(dirname "$0")/.."

home=$(mktemp -d)
trap 'HOME=$home ./target/release/pfsession down --stop-sessions >/dev/null 2>&1 || true; chmod -R u+w "$home" 2>/dev/null || true; rm -rf "$home"' EXIT
first=$(sed -n 's/^    \(cargo run -r -- run .*\)$/\1/p' README.md | head -n 1)
second=$(sed -n 's/^    \(cargo run -r -- list.*\)$/\1/p' README.md | head -n 1)
flow=$(echo "$first" | awk '{print $6}')

# Cargo's own home and the toolchain are the machine's; everything of this project's is the newcomer's.
newcomer() { env -u XDG_STATE_HOME -u XDG_CACHE_HOME -u PFSESSION_STATE -u PFSESSION_STORE HOME="$home" CARGO_HOME="${CARGO_HOME:-$OLDHOME/.cargo}" RUSTUP_HOME="${RUSTUP_HOME:-$OLDHOME/.rustup}" "$@"; }
OLDHOME=$HOME

begun=$(date +%s.%N)
cargo build --release
built=$(date +%s.%N)
# Fault injection is for tests alone: what people build has none.
if grep -q "fault injected" target/release/pfsession; then echo "the released program can inject faults"; exit 1; fi
newcomer $first >"$home/first.jsonl"
made=$(date +%s.%N)
diff <(python3 -c 'import json,sys; [print(json.dumps(json.loads(l), sort_keys=True)) for l in open(sys.argv[1])]' "$home/first.jsonl") \
     <(python3 -c 'import json,sys; [print(json.dumps(json.loads(l), sort_keys=True)) for l in open(sys.argv[1])]' "$flow/expected.jsonl")
again=$(date +%s.%N)
newcomer $first >"$home/again.jsonl"
done=$(date +%s.%N)
cmp "$home/first.jsonl" "$home/again.jsonl"
newcomer $second
python3 - "$begun" "$built" "$made" "$again" "$done" <<'P'
import sys
begun, built, made, again, done = map(float, sys.argv[1:])
print(f"build {built - begun:.1f} s; first run with nothing there {made - built:.1f} s; the same again {done - again:.2f} s (cargo's own check included)")
P
