"""Control groups: a sandbox makes groups of its own, enters them, and writes its limits there."""

import errno
import os

NAMES = {"cpu": "processor time", "memory": "memory", "pids": "number of processes"}
MAKER = os.getpid()
FILES = "cpu.cfs_period_us cpu.cfs_quota_us cpu.max memory.limit_in_bytes memory.max memory.swap.max pids.max".split()


def enter_groups(places):
    """Makes a group of its own below each of these places, and goes into it. The groups, each with
    its files of limits, open, as it is another user that writes them."""
    name, groups = f"pfsession-{MAKER}-{os.urandom(6).hex()}", {}
    for place in places:
        group = os.path.join(place, name)
        try:
            os.mkdir(group)
            with open(os.path.join(group, "cgroup.procs"), "w") as file:
                file.write("0")
            groups[group] = {}
        except OSError:
            try:
                os.rmdir(group)
            except OSError:
                pass
            continue
        for file in FILES:
            try:
                groups[group][file] = os.open(os.path.join(group, file), os.O_WRONLY)
            except OSError:
                pass
    return groups


def limit_groups(spec, groups):
    """Limits the groups to what the session may have. What is not held, as words."""
    held, lacks = set(), []
    by_place = {os.path.dirname(group): group for group in groups}
    for each in spec.get("groups", []):
        group = by_place.get(each["below"])
        for controller, file, value in each["limits"]:
            try:
                if group is None:
                    raise OSError(errno.EPERM, os.strerror(errno.EPERM))
                if file not in groups[group]:
                    raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
                os.write(groups[group][file], value.encode())
                held.add(controller)
            except OSError as error:
                # There may be no swap to speak of.
                if file != "memory.swap.max":
                    lacks.append(f"{NAMES[controller]} ({os.strerror(error.errno)})")
    for files in groups.values():
        for fd in files.values():
            os.close(fd)
    size = spec.get("size")
    wanted = ["cpu", "memory", "pids"] if size else ["pids"]
    for controller in wanted:
        if controller not in held and not any(lack.startswith(NAMES[controller]) for lack in lacks):
            lacks.append(f"{NAMES[controller]} (no cgroup)")
    if size:
        cpus, memory = size
        there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        if cpus > os.cpu_count():
            lacks.append(f"{cpus} processor{'' if cpus == 1 else 's'} (the machine has {os.cpu_count()})")
        if memory > there:
            lacks.append(f"{memory >> 30} GiB of memory (the machine has {there >> 30})")
    return all(controller in held for controller in wanted), lacks
