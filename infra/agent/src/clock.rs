//! The clock that leases count by.

/// By the clock that counts while the machine sleeps, in milliseconds since its start.
pub(crate) fn boot_time() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    now.tv_sec as u64 * 1000 + now.tv_nsec as u64 / 1_000_000
}
