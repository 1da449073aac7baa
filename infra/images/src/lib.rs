//! Base images of one machine: pulled from a registry or read from an archive, checked, and
//! unpacked once.
//!
//! | path below the store's `images/` | content |
//! | --- | --- |
//! | `blobs/{digest}` | a download under way; removed once it is unpacked |
//! | `layers/{diff id}/` | one unpacked layer in `root/`, and what it removes from those below it in `layer.json` |
//! | `trees/{key}/` | the layers of an image over each other, made of hard links |
//! | `records/{digest}.json` | [`Record`]: an image that is complete. Renamed into place last |
//! | `tags/{hash}.json` | the digest that a name had when it was last asked for |
//! | `{digest}.used` | held while a session uses the image; its time is when that began last |
//!
//! Nothing of an image is parsed or unpacked before its digest is checked, and nothing of it is
//! executed here.
//!
//! Absent here: sessions, sandboxes, Python, and every decision about which image a session has.

#![cfg_attr(not(test), warn(clippy::too_many_lines, clippy::cognitive_complexity))]

pub mod accounts;
mod archive;
mod blobs;
mod build;
mod digest;
mod engine;
mod layer;
mod manifest;
mod name;
mod program;
mod progress;
mod registry;
mod source;
mod store;
mod tarball;
mod tree;
mod upload;

pub use build::{Addition, Built, BuiltLayer, Target};
pub use engine::{Engine, VARIABLES};
pub use manifest::Config;
pub use name::{Name, Reference};
pub use progress::{How, Progress, Step, silent};
pub use store::{Held, Image, Listed, Record, Removed, Store};

use contract::{Code, Failure};

/// The `PATH` of an image that names none.
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A failure of this crate.
pub(crate) fn failure(code: Code, message: String) -> Failure {
    Failure::new(code, message)
}

/// An error of the file system while an image is written.
pub(crate) fn io(place: &std::path::Path, error: std::io::Error) -> Failure {
    if matches!(error.raw_os_error(), Some(libc::ENOSPC | libc::EDQUOT)) {
        let message = format!(
            "There is no room for the image in {}. Make some: pfsession image list.",
            place.display()
        );
        return failure(Code::ImageDiskFull, message);
    }
    let message = format!(
        "{} cannot be used: {error}. Put that right, and pull the image again.",
        place.display()
    );
    failure(Code::ImageFailed, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    #[test]
    fn what_the_file_system_says_is_an_error_with_what_to_do() {
        let said = |error: i32| io(std::path::Path::new("/s"), std::io::Error::from_raw_os_error(error)).to_string();
        expect!["Image.DiskFull: There is no room for the image in /s. Make some: pfsession image list."]
            .assert_eq(&said(libc::ENOSPC));
        expect!["Image.Failed: /s cannot be used: Permission denied (os error 13). Put that right, and pull the image again."]
            .assert_eq(&said(libc::EACCES));
    }
}
