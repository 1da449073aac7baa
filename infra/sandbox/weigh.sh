#!/usr/bin/env bash
# weigh.sh [ROUNDS]: the time of a cold sandbox: ours, bubblewrap's and crun's (Debian's packages, fetched, not installed). As root.
#
# gVisor's runsc is in no registry of Debian's: it is not weighed.
set -euo pipefail
cd "$(dirname "$0")/../.."
rounds=${1:-30}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
chmod 755 "$folder"
(cd "$folder" && apt-get download bubblewrap crun libyajl2 >/dev/null 2>&1 && for each in *.deb; do dpkg -x "$each" .; done)
# A root that is nobody's, as our own sessions have.
id=2000000000
mkdir -p "$folder"/bundle/rootfs/{proc,dev,usr,bin,lib,lib64,tmp,sys}
chown -R $id:$id "$folder/bundle/rootfs"
bind() { printf '{"destination":"/%s","type":"bind","source":"/usr/%s","options":["rbind","ro"]}' "$1" "$2"; }
ids="[{\"containerID\":0,\"hostID\":$id,\"size\":1}]"
cat >"$folder/bundle/config.json" <<JSON
{"ociVersion":"1.0.0","hostname":"session","root":{"path":"rootfs","readonly":true},
"process":{"user":{"uid":0,"gid":0},"args":["/bin/true"],"env":["PATH=/bin"],"cwd":"/","noNewPrivileges":true,"capabilities":{}},
"mounts":[{"destination":"/proc","type":"proc","source":"proc"},
{"destination":"/dev","type":"tmpfs","source":"tmpfs","options":["nosuid","mode=755","size=65536k"]},
$(bind usr .),$(bind bin bin),$(bind lib lib),$(bind lib64 lib64)],
"linux":{"uidMappings":$ids,"gidMappings":$ids,
"namespaces":[{"type":"pid"},{"type":"ipc"},{"type":"uts"},{"type":"mount"},{"type":"user"},{"type":"network"}]}}
JSON
cargo build -q -p sandbox --example weigh
export LD_LIBRARY_PATH="$folder/usr/lib/$(uname -m)-linux-gnu"
# crun refuses version 1 of control groups with version 2 beside it: it sees version 1 alone.
unshare -m sh -c 'umount -l /sys/fs/cgroup/unified 2>/dev/null || true; exec "$@"' sh \
  target/debug/examples/weigh "$folder/usr/bin/bwrap" "$folder/usr/bin/crun" "$folder/bundle" "$rounds"
