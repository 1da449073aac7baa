//! Progress of a pull, by layer.

/// A step of a pull. It may come from several threads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step<'a> {
    /// The image has these layers: the digest and the size in bytes of each that is not there yet,
    /// and how many are.
    Layers {
        missing: Vec<(&'a str, u64)>,
        present: usize,
    },
    /// So many bytes of a layer are there.
    Downloaded {
        layer: &'a str,
        bytes: u64,
    },
    Unpacking {
        layer: &'a str,
    },
    Unpacked {
        layer: &'a str,
    },
    /// So many bytes of a layer are sent, or written to an archive.
    Sent {
        layer: &'a str,
        bytes: u64,
    },
    /// A layer of a new image is at its target.
    Kept {
        layer: &'a str,
        how: How,
    },
    /// Another process pulls the same.
    Waiting,
}

/// The way of a layer to its target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// The registry has it.
    Present,
    /// The registry has it in another repository, and took it from there.
    Mounted,
    Sent,
    /// It is in the archive.
    Written,
}

/// Takes each step.
pub type Progress<'a> = &'a (dyn Fn(Step<'_>) + Sync);

/// Takes no notice.
pub fn silent(_: Step<'_>) {}
