#!/usr/bin/env bash
# Sessions are held to their size by control groups of version 2, whatever version this machine has: the agent's own tests, as root and as an
# ordinary user with a part of the tree, in a virtual machine with a kernel of Debian's. Installs what it needs; takes some minutes, as the
# machine's processor is emulated (a KVM is not everywhere, and not every one boots).
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
initial="$here/initial" disk="$here/disk"
mkdir -p "$here" "$disk/state"
if [ ! -e "$here/kernel" ]; then
  apt-get update -qq
  (cd "$here" && apt-get download -qq "$(apt-cache depends linux-image-amd64 | awk '/Depends: linux-image/ {print $2; exit}')")
  mkdir -p "$initial/bin"
  # No more than the first steps need: what a disk and this machine's files are seen by.
  dpkg-deb --fsys-tarfile "$here"/linux-image-*.deb | tar -x -C "$initial" --wildcards './boot/vmlinuz-*' '*/fs/9p/*' '*/net/9p/*' \
    '*/fs/netfs/*' '*/fs/fscache/*' '*/fs/ext4/*' '*/fs/jbd2/*' '*/fs/mbcache*' '*/fs/overlayfs/*' '*/drivers/virtio/*' \
    '*/block/virtio_blk*' '*/lib/crc16*' '*/crypto/crc32c*'
  busybox depmod -b "$initial" "$(basename "$initial"/lib/modules/*)"
  cp "$(command -v busybox)" "$initial/bin/busybox"
  mv "$initial"/boot/vmlinuz-* "$here/kernel"
fi

tests=$(cargo test --workspace --test sessions --no-run 2>&1 | sed -n 's/.*(\(.*\/sessions-[0-9a-f]*\))$/\1/p')
# Here first, with this machine's groups: this builds the base image, which needs the network, that the other machine has not.
TEST_STATE="$disk/state" timeout 600 "$tests" a_session_is_held
rm -rf "$disk/state/tools/uv-cache"
cp "$tests" "$disk/sessions"

# Its first process: this machine's files, read only, with a disk of its own for all that is written.
cat >"$initial/init" <<'I'
#!/bin/busybox sh
/bin/busybox mkdir -p /proc /root
/bin/busybox mount -t proc proc /proc
/bin/busybox modprobe -a virtio_pci virtio_blk crc32c_generic ext4 overlay 9pnet_virtio 9p
/bin/busybox mount -t 9p -o trans=virtio,ro,msize=1048576,cache=loose root /root
/bin/busybox mount -t devtmpfs devices /root/dev
/bin/busybox mount -t ext4 /root/dev/vda /root/tmp
exec /bin/busybox switch_root /root /bin/sh /tmp/tests.sh
I
chmod +x "$initial/init"
cat >"$disk/tests.sh" <<'T'
mount -t proc proc /proc
mount -t sysfs sys /sys
# As systemd mounts it, and has its groups.
groups=/sys/fs/cgroup
mount -t cgroup2 -o nsdelegate,memory_recursiveprot groups $groups
mkdir -p $groups/user.slice/session.scope
for group in $groups $groups/user.slice; do echo '+cpu +memory +pids' >$group/cgroup.subtree_control; done
mkdir /dev/shm
mount -t tmpfs shared /dev/shm
ip link set lo up
chmod 1777 /tmp
cd /tmp
export PATH=/usr/local/bin:/usr/bin:/bin HOME=/tmp/home TEST_STATE=/tmp/state
echo "== in the topmost group"
./sessions a_session_is_held && top=0 || top=$?
echo "== in a session of a user"
echo 0 >$groups/user.slice/session.scope/cgroup.procs
./sessions a_session_is_held each_tier && below=0 || below=$?
find $groups -type d
echo "ended: $top $below"
sync
echo o >/proc/sysrq-trigger
sleep 60
T

rm -f "$here/disk.ext4"
mke2fs -q -t ext4 -d "$disk" "$here/disk.ext4" 4G
(cd "$initial" && find . | busybox cpio -o -H newc 2>/dev/null) >"$here/initial.cpio"
timeout 900 qemu-system-x86_64 -machine q35 -accel tcg,thread=multi -cpu max -smp 2 -m 4G -nographic -no-reboot -nic none \
  -kernel "$here/kernel" -initrd "$here/initial.cpio" -append "console=ttyS0 quiet panic=-1" \
  -drive "file=$here/disk.ext4,format=raw,if=virtio" \
  -virtfs local,path=/,mount_tag=root,security_model=none,readonly=on,multidevs=remap </dev/null | tee "$here/said"
grep -q '^ended: 0 0' "$here/said"
