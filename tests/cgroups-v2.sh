#!/usr/bin/env bash
# Sessions are held to their size by control groups of version 2, whatever version this machine has: the agent's own tests in a virtual machine
# with a kernel of Debian's, as root and as an ordinary user who has a part of the tree. Installs what it needs. Takes some six minutes, as the
# processor is emulated: a KVM is not everywhere, and not every one boots.
set -euo pipefail
cd "$(dirname "$0")/.."

need=()
command -v qemu-system-x86_64 >/dev/null || need+=(qemu-system-x86)
command -v busybox >/dev/null || need+=(busybox-static)
command -v mke2fs >/dev/null || need+=(e2fsprogs)
if [ ${#need[@]} -gt 0 ]; then
  apt-get update -qq && apt-get install -y -qq --no-install-recommends "${need[@]}"
fi

here="$PWD/target/cgroups-v2"
first="$here/first" disk="$here/disk"
mkdir -p "$disk/state"
if [ ! -e "$here/kernel" ]; then
  rm -rf "$first" "$here"/*.deb
  mkdir -p "$first/bin"
  apt-get update -qq
  (cd "$here" && apt-get download -qq "$(apt-cache depends linux-image-amd64 | awk '/Depends: linux-image/ {print $2; exit}')")
  # Of its modules, those by which a disk and this machine's files are seen, and overlays.
  dpkg-deb --fsys-tarfile "$here"/linux-image-*.deb | tar -x -C "$first" --wildcards './boot/vmlinuz-*' '*/fs/9p/*' '*/net/9p/*' \
    '*/fs/netfs/*' '*/fs/fscache/*' '*/fs/ext4/*' '*/fs/jbd2/*' '*/fs/mbcache*' '*/fs/overlayfs/*' '*/drivers/virtio/*' \
    '*/block/virtio_blk*' '*/lib/crc16*' '*/crypto/crc32c*'
  busybox depmod -b "$first" "$(basename "$first"/lib/modules/*)"
  cp "$(command -v busybox)" "$first/bin/busybox"
  mv "$first"/boot/vmlinuz-* "$here/kernel"
fi

tests=$(cargo test --workspace --test sessions --no-run 2>&1 | sed -n 's/.*(\(.*\/sessions-[0-9a-f]*\))$/\1/p')
# Here first, with this machine's groups: that builds the base image, for which the other machine has no network.
TEST_STATE="$disk/state" timeout 600 "$tests" a_session_is_held
rm -rf "$disk/state/tools/uv-cache"
cp "$tests" "$disk/sessions"

# What it starts with: this machine's files, read only, and a disk on /tmp for all that is written.
cat >"$first/init" <<'I'
#!/bin/busybox sh
/bin/busybox mkdir -p /proc /all
/bin/busybox mount -t proc proc /proc
/bin/busybox modprobe -a virtio_pci virtio_blk crc32c_generic ext4 overlay 9pnet_virtio 9p
/bin/busybox mount -t 9p -o trans=virtio,ro,msize=1048576,cache=loose root /all
/bin/busybox mount -t devtmpfs devices /all/dev
/bin/busybox mount -t ext4 /all/dev/vda /all/tmp
exec /bin/busybox switch_root /all /bin/sh /tmp/tests.sh
I
chmod +x "$first/init"
echo "export PATH='$PATH' HOME=/tmp/home TEST_STATE=/tmp/state TEST_TIER=A" >"$disk/tests.sh"
cat >>"$disk/tests.sh" <<'T'
mount -t proc proc /proc
mount -t sysfs sys /sys
mkdir /dev/shm
mount -t tmpfs shared /dev/shm
busybox ip link set lo up
chmod 1777 /tmp
cd /tmp
# As systemd mounts it, with groups as it makes them.
groups=/sys/fs/cgroup
mount -t cgroup2 -o nsdelegate,memory_recursiveprot groups $groups
mkdir -p $groups/user.slice/session.scope
for group in $groups $groups/user.slice; do echo '+cpu +memory +pids' >$group/cgroup.subtree_control; done
echo "== in the topmost group"
./sessions a_session_is_held; topmost=$?
echo "== in one below it, and an ordinary user in one of its own"
echo 0 >$groups/user.slice/session.scope/cgroup.procs
./sessions a_session_is_held each_tier; below=$?
echo "ended: $topmost $below"
busybox poweroff -f
T

rm -f "$here/disk.ext4"
mke2fs -q -t ext4 -d "$disk" "$here/disk.ext4" 4G
(cd "$first" && find . | busybox cpio -o -H newc 2>/dev/null) >"$here/first.cpio"
timeout 900 qemu-system-x86_64 -machine q35 -accel tcg,thread=multi -cpu max -smp 2 -m 4G -nographic -no-reboot -nic none \
  -kernel "$here/kernel" -initrd "$here/first.cpio" -append "console=ttyS0 quiet panic=-1" \
  -drive "file=$here/disk.ext4,format=raw,if=virtio" \
  -virtfs local,path=/,mount_tag=root,security_model=none,readonly=on,multidevs=remap </dev/null | tee "$here/said"
grep -q '^ended: 0 0' "$here/said"
# Without groups the tests pass too, and say so.
! grep -E 'no groups can be made|is not tried' "$here/said" || exit 1
