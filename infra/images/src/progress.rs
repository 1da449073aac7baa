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
    /// Another process pulls the same.
    Waiting,
}

/// Takes each step.
pub type Progress<'a> = &'a (dyn Fn(Step<'_>) + Sync);

/// Takes no notice.
pub fn silent(_: Step<'_>) {}
