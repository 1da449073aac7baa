#!/usr/bin/env bash
# weigh.sh [ROUNDS]: the time of a cold sandbox: ours, bubblewrap's, crun's and gVisor's (Debian's packages, fetched, not installed).
# Each starts `/bin/true`, and then a Python that compiles half of its library, as a build does. As root.
set -euo pipefail
cd "$(dirname "$0")/../.."
rounds=${1:-30}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
chmod 755 "$folder"
(cd "$folder" && apt-get download bubblewrap crun libyajl2 runsc >/dev/null 2>&1 && for each in *.deb; do dpkg -x "$each" .; done)
# A root that is nobody's, as our own sessions have. gVisor has a user namespace of its own making.
id=2000000000
mkdir -p "$folder"/{crun,runsc}/rootfs/{proc,dev,usr,bin,lib,lib64,tmp,sys}
chown -R $id:$id "$folder/crun/rootfs"
bind() { printf '{"destination":"/%s","type":"bind","source":"/usr/%s","options":["rbind","ro"]}' "$1" "$2"; }
# bundle NAME NAMESPACES PROGRAM: an OCI bundle that runs a program, a JSON list.
bundle() {
  cat >"$folder/$1/config.json" <<JSON
{"ociVersion":"1.0.0","hostname":"session","root":{"path":"rootfs","readonly":true},
"process":{"user":{"uid":0,"gid":0},"args":$3,"env":["PATH=/bin"],"cwd":"/","noNewPrivileges":true,"capabilities":{}},
"mounts":[{"destination":"/proc","type":"proc","source":"proc"},
{"destination":"/dev","type":"tmpfs","source":"tmpfs","options":["nosuid","mode=755","size=65536k"]},
$(bind usr .),$(bind bin bin),$(bind lib lib),$(bind lib64 lib64)],
"linux":{$2"namespaces":[{"type":"pid"},{"type":"ipc"},{"type":"uts"},{"type":"mount"},{"type":"network"}$4]}}
JSON
}
cargo build -q -p sandbox --example weigh
export LD_LIBRARY_PATH="$folder/usr/lib/$(uname -m)-linux-gnu"
ids="[{\"containerID\":0,\"hostID\":$id,\"size\":1}]"
compile='import glob; [compile(open(f, "rb").read(), f, "exec") for f in glob.glob("/usr/lib/python3*/[a-l]*.py")]'
for program in '["/bin/true"]' "[\"/usr/bin/python3\",\"-IBc\",$(python3 -c 'import json, sys; print(json.dumps(sys.argv[1]))' "$compile")]"; do
  bundle crun "\"uidMappings\":$ids,\"gidMappings\":$ids," "$program" ',{"type":"user"}'
  bundle runsc "" "$program" ""
  # crun refuses version 1 of control groups with version 2 beside it: it sees version 1 alone.
  unshare -m sh -c 'umount -l /sys/fs/cgroup/unified 2>/dev/null || true; exec "$@"' sh \
    target/debug/examples/weigh "$folder" "$rounds" "$program"
done
