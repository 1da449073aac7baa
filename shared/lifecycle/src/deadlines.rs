//! Every number of milliseconds that a promise rests on. A test compares the ones that the state
//! machine repeats with `infra/lifecycle.asl.json`: a step there waits longer than the phase here
//! may take, so that the core decides first and the state machine is the second net.

use crate::Millis;

/// The longest time that a compute resource may take to come up. An EC2 instance takes a minute or
/// two; a machine that is already there, nothing.
pub const PROVISIONING: Millis = 600_000;

/// The longest time that a container may take from the request to its agent's first word. It pulls
/// the base image.
pub const LAUNCHING: Millis = 300_000;

/// The longest time of the check whether a session can be made anew, while it goes on as it was.
/// Its base image is pulled, as by an install.
pub const CHECKING: Millis = 1_800_000;

/// The longest time of an install. Large wheels over a slow network, built from source.
pub const INSTALLING: Millis = 1_800_000;

/// The time after which the driver is asked again to remove a container.
pub const STOPPING: Millis = 4_000;

/// The life of an agent after its request for the lease that was last granted. It asks at every
/// third of this.
pub const LEASE: Millis = 60_000;

/// The margin added to a lease before its agent counts as ended: clocks that tick at different
/// rates, and the time to end itself.
pub const LEASE_MARGIN: Millis = 10_000;

/// The longest time in which a request to launch may be acted on where the session has the whole of
/// a machine that is already there. A driver drops an older one.
pub const LAUNCH_WINDOW: Millis = 60_000;

/// The same for every other VM size: there an instance may pull the base image first. Two gigabytes
/// take one to two minutes where a disk writes 125 MB/s, as EC2's gp3 does at first, and what is
/// pulled is unpacked to twice that. It is computed, not measured.
pub const LAUNCH_WINDOW_WITH_PULL: Millis = 240_000;

/// The longest time that a run may go without its agent naming it among the runs in progress.
pub const RUN_LEASE: Millis = 90_000;

/// The longest time that an effect may stay unsent before a sweep looks after it.
pub const OUTBOX: Millis = 3_000;

/// The longest time that a compute resource may stay in a phase that is not final before its driver
/// is asked again.
pub const COMPUTE_RETRY: Millis = 15_000;

/// The default idle time of a flow that was started from the command line or by a run: one hour.
///
/// # Source
///
/// "The idle shutdown is one hour if you are using CLI/SDK to submit a flow run" (the
/// specification, *Use a compute session to submit a flow run*).
pub const IDLE_DEFAULT: Millis = 3_600_000;

/// The time from the warning to a deletion for idleness, or a quarter of the idle time if that is
/// less.
pub const IDLE_WARNING: Millis = 300_000;

/// The bound within which a stop ends on one machine, where the driver is part of the host.
pub const STOP_BOUND_ON_ONE_MACHINE: Millis = 15_000;
