//! The clock that leases count by.

/// By the clock that counts while the machine sleeps, in milliseconds since its start.
pub(crate) fn boot_time() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: it writes into `now`, which is as big as it has to be.
    unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &mut now) };
    now.tv_sec as u64 * 1000 + now.tv_nsec as u64 / 1_000_000
}
