//! The package environments of one machine: resolved, built in a sandbox, kept by content, and removed when unused. See `README.md`.

pub mod image;
pub mod locked;
pub mod packages;
pub mod private;
pub mod prune;
pub mod reach;
pub mod rooted;
pub mod scratch;
mod sources;
pub mod store;
pub mod uv;

pub use image::{image_of, is_built_in};
pub use sources::index_address;
pub use store::{FOLDER as STORE, folder as store_folder};
pub use uv::kept_variables;

use sandbox::files::{digest, random, write_atomically};
