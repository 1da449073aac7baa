//! The filter of system calls of a sandbox.

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};

/// The filters of a sandbox with namespaces of its own, and of one without; each is a program for
/// the kernel, base64.
///
/// They refuse system calls by which a process could get out of, or look out of, its sandbox. Empty
/// for a machine whose calls are not known here.
///
/// * `internet`: whether there are sockets of the internet.
pub fn seccomp(internet: bool) -> [String; 2] {
    if cfg!(any(target_arch = "x86_64", target_arch = "aarch64")) {
        [false, true].map(|shares_processes| BASE64.encode(program(shares_processes, internet)))
    } else {
        Default::default()
    }
}

#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: u32 = 0xc000_003e;
#[cfg(not(target_arch = "x86_64"))]
const ARCHITECTURE: u32 = 0xc000_00b7;

/// The first number that no kernel gave a call when this was written. What is newer does not exist
/// in a sandbox.
const FIRST_UNKNOWN: u32 = 467;

const LOAD: u16 = 0x20;
const IF_EQUAL: u16 = 0x15;
const IF_AT_LEAST: u16 = 0x35;
const IF_ANY_BIT: u16 = 0x45;
const RETURN: u16 = 0x06;
const ALLOW: u32 = 0x7fff_0000;
const KILL: u32 = 0x8000_0000;
const REFUSE: u32 = 0x0005_0000 | libc::EPERM as u32;
const UNKNOWN: u32 = 0x0005_0000 | libc::ENOSYS as u32;
/// The flags of `clone` that make a namespace.
const NAMESPACES: u32 = 0x7e02_0000;

/// Calls without a use in a session.
const REFUSED: &[libc::c_long] = &[
    // Mounts, roots and namespaces.
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_open_tree,
    libc::SYS_move_mount,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    442, // mount_setattr
    457, // statmount
    458, // listmount
    libc::SYS_open_by_handle_at,
    libc::SYS_name_to_handle_at,
    libc::SYS_fanotify_init,
    libc::SYS_quotactl,
    443, // quotactl_fd
    // Other processes.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_kcmp,
    438, // pidfd_getfd
    440, // process_madvise
    448, // process_mrelease
    libc::SYS_migrate_pages,
    libc::SYS_move_pages,
    libc::SYS_perf_event_open,
    libc::SYS_lookup_dcookie,
    // Parts of the kernel that have had many faults.
    libc::SYS_bpf,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    447, // memfd_secret
    // The machine.
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_adjtimex,
    libc::SYS_clock_adjtime,
    libc::SYS_syslog,
    libc::SYS_vhangup,
    460, // lsm_set_self_attr
];

/// Those that only this architecture has.
#[cfg(target_arch = "x86_64")]
const REFUSED_HERE: &[libc::c_long] = &[
    libc::SYS_ioperm,
    libc::SYS_iopl,
    libc::SYS_modify_ldt,
    libc::SYS_uselib,
    libc::SYS_ustat,
    libc::SYS_sysfs,
    libc::SYS__sysctl,
];
#[cfg(not(target_arch = "x86_64"))]
const REFUSED_HERE: &[libc::c_long] = &[];

/// A call that is refused by one of its arguments.
struct Argument {
    call: libc::c_long,
    at: u32,
    values: Values,
}

enum Values {
    Refused(&'static [u32]),
    /// All others are refused.
    Only(&'static [u32]),
}

const fn refuse_values(call: libc::c_long, at: u32, values: &'static [u32]) -> Argument {
    let values = Values::Refused(values);
    Argument { call, at, values }
}

const fn only(call: libc::c_long, at: u32, values: &'static [u32]) -> Argument {
    let values = Values::Only(values);
    Argument { call, at, values }
}

const ARGUMENTS: &[Argument] = &[
    // TIOCSTI and TIOCLINUX type into a terminal.
    refuse_values(libc::SYS_ioctl, 1, &[0x5412, 0x541c]),
    // PER_LINUX and PER_LINUX32, with UNAME26, and the question which it is.
    only(libc::SYS_personality, 0, &[0, 8, 0x2_0000, 0x2_0008, 0xffff_ffff]),
    // PR_SCHED_CORE reaches other processes.
    refuse_values(libc::SYS_prctl, 0, &[62]),
];

/// Sockets are local, of the internet, or of the kernel's tables: those of a virtual machine's
/// host, of raw packets and of the kernel's ciphers belong to no network namespace, or to no
/// session.
const SOCKETS: &Argument = &only(
    libc::SYS_socket,
    0,
    &[
        libc::AF_UNIX as u32,
        libc::AF_INET as u32,
        libc::AF_INET6 as u32,
        libc::AF_NETLINK as u32,
    ],
);
/// Without those of the internet.
const LOCAL_SOCKETS: &Argument = &only(libc::SYS_socket, 0, &[libc::AF_UNIX as u32, libc::AF_NETLINK as u32]);

/// The user's other processes are reached by their ids where these have no namespace: only a call
/// on the caller itself is left.
const ARGUMENTS_IF_SHARED: &[Argument] = &[
    only(libc::SYS_sched_setaffinity, 0, &[0]),
    only(libc::SYS_sched_setscheduler, 0, &[0]),
    only(libc::SYS_sched_setparam, 0, &[0]),
    only(libc::SYS_sched_setattr, 0, &[0]),
    only(libc::SYS_prlimit64, 0, &[0]),
    // PRIO_PROCESS, and IOPRIO_WHO_PROCESS: a user is all of its processes.
    only(libc::SYS_setpriority, 0, &[0]),
    only(libc::SYS_setpriority, 1, &[0]),
    only(libc::SYS_ioprio_set, 0, &[1]),
    only(libc::SYS_ioprio_set, 1, &[0]),
];

/// The filter's instructions: the code, where to go if it holds and if not, and a value.
type Line = (u16, u8, u8, u32);

fn program(shares_processes: bool, internet: bool) -> Vec<u8> {
    let mut program: Vec<Line> = vec![
        (LOAD, 0, 0, 4), // the architecture
        (IF_EQUAL, 1, 0, ARCHITECTURE),
        (RETURN, 0, 0, KILL),
        (LOAD, 0, 0, 0), // the call
    ];
    if cfg!(target_arch = "x86_64") {
        // The x32 calls are others under the same numbers.
        program.extend([(IF_AT_LEAST, 0, 1, 0x4000_0000), (RETURN, 0, 0, REFUSE)]);
    }
    program.extend([(IF_AT_LEAST, 0, 1, FIRST_UNKNOWN), (RETURN, 0, 0, UNKNOWN)]);
    for call in REFUSED.iter().chain(REFUSED_HERE) {
        program.extend([(IF_EQUAL, 0, 1, *call as u32), (RETURN, 0, 0, REFUSE)]);
    }
    // Its arguments cannot be looked at; without it the C library takes `clone`.
    program.extend([(IF_EQUAL, 0, 1, libc::SYS_clone3 as u32), (RETURN, 0, 0, UNKNOWN)]);
    let shared = if shares_processes { ARGUMENTS_IF_SHARED } else { &[] };
    let sockets = if internet { SOCKETS } else { LOCAL_SOCKETS };
    for argument in ARGUMENTS.iter().chain(shared).chain([sockets]) {
        let checks = match argument.values {
            Values::Refused(values) => {
                let check = |value: &u32| [(IF_EQUAL, 0, 1, *value), (RETURN, 0, 0, REFUSE)];
                values.iter().flat_map(check).collect::<Vec<Line>>()
            }
            Values::Only(values) => {
                let far = values.len() as u8;
                let check = |(at, value): (usize, &u32)| (IF_EQUAL, far - at as u8, 0, *value);
                let checks = values.iter().enumerate().map(check);
                checks.chain([(RETURN, 0, 0, REFUSE)]).collect()
            }
        };
        program.push((IF_EQUAL, 0, checks.len() as u8 + 2, argument.call as u32));
        program.push((LOAD, 0, 0, 16 + 8 * argument.at));
        program.extend(checks);
        program.push((LOAD, 0, 0, 0));
    }
    program.extend([
        (IF_EQUAL, 0, 3, libc::SYS_clone as u32),
        (LOAD, 0, 0, 16), // its flags
        (IF_ANY_BIT, 0, 1, NAMESPACES),
        (RETURN, 0, 0, REFUSE),
        (RETURN, 0, 0, ALLOW),
    ]);
    let bytes = program.iter().flat_map(|(code, yes, no, value)| {
        let [a, b] = code.to_ne_bytes();
        let [c, d, e, f] = value.to_ne_bytes();
        [a, b, *yes, *no, c, d, e, f]
    });
    bytes.collect()
}
