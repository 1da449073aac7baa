//! The filter of system calls of a sandbox.

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};

/// Refuses system calls by which a process could get out of, or look out of, its sandbox; as a program for the kernel, base64.
///
/// Empty for a machine whose calls are not known here.
pub fn seccomp() -> String {
    #[cfg(target_arch = "x86_64")]
    const ARCHITECTURE: u32 = 0xc000_003e;
    #[cfg(target_arch = "aarch64")]
    const ARCHITECTURE: u32 = 0xc000_00b7;
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    return String::new();

    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    {
        const LOAD: u16 = 0x20;
        const IF_EQUAL: u16 = 0x15;
        const IF_AT_LEAST: u16 = 0x35;
        const IF_ANY_BIT: u16 = 0x45;
        const RETURN: u16 = 0x06;
        const ALLOW: u32 = 0x7fff_0000;
        const KILL: u32 = 0x8000_0000;
        const REFUSE: u32 = 0x0005_0000 | libc::EPERM as u32;
        const UNKNOWN: u32 = 0x0005_0000 | libc::ENOSYS as u32;
        const NAMESPACES: u32 = 0x7e02_0000;
        let denied = [
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
            442,
            libc::SYS_ptrace,
            libc::SYS_process_vm_readv,
            libc::SYS_process_vm_writev,
            libc::SYS_kcmp,
            438,
            libc::SYS_bpf,
            libc::SYS_perf_event_open,
            libc::SYS_userfaultfd,
            libc::SYS_keyctl,
            libc::SYS_add_key,
            libc::SYS_request_key,
            libc::SYS_kexec_load,
            libc::SYS_kexec_file_load,
            libc::SYS_init_module,
            libc::SYS_finit_module,
            libc::SYS_delete_module,
            libc::SYS_reboot,
            libc::SYS_swapon,
            libc::SYS_swapoff,
            libc::SYS_acct,
            libc::SYS_quotactl,
            libc::SYS_settimeofday,
            libc::SYS_clock_settime,
            libc::SYS_adjtimex,
            libc::SYS_clock_adjtime,
            libc::SYS_syslog,
            libc::SYS_open_by_handle_at,
            libc::SYS_name_to_handle_at,
            libc::SYS_vhangup,
            libc::SYS_io_uring_setup,
            libc::SYS_io_uring_enter,
            libc::SYS_io_uring_register,
            libc::SYS_fanotify_init,
        ];
        let mut program: Vec<(u16, u8, u8, u32)> = vec![
            (LOAD, 0, 0, 4), // the architecture
            (IF_EQUAL, 1, 0, ARCHITECTURE),
            (RETURN, 0, 0, KILL),
            (LOAD, 0, 0, 0), // the call
        ];
        if cfg!(target_arch = "x86_64") {
            // The x32 calls are others under the same numbers.
            program.extend([(IF_AT_LEAST, 0, 1, 0x4000_0000), (RETURN, 0, 0, REFUSE)]);
        }
        for call in denied {
            program.extend([(IF_EQUAL, 0, 1, call as u32), (RETURN, 0, 0, REFUSE)]);
        }
        // Its arguments cannot be looked at; without it the C library takes `clone`.
        program.extend([(IF_EQUAL, 0, 1, libc::SYS_clone3 as u32), (RETURN, 0, 0, UNKNOWN)]);
        program.extend([
            (IF_EQUAL, 0, 3, libc::SYS_clone as u32),
            (LOAD, 0, 0, 16), // its flags
            (IF_ANY_BIT, 0, 1, NAMESPACES),
            (RETURN, 0, 0, REFUSE),
            (RETURN, 0, 0, ALLOW),
        ]);
        let bytes: Vec<u8> = program
            .iter()
            .flat_map(|(code, yes, no, value)| {
                let [a, b] = code.to_ne_bytes();
                let [c, d, e, f] = value.to_ne_bytes();
                [a, b, *yes, *no, c, d, e, f]
            })
            .collect();
        BASE64.encode(bytes)
    }
}
