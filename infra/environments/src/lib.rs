//! The package environments of one machine: resolved, built in a sandbox, kept by content, and
//! removed when unused. See `README.md`.

#![cfg_attr(not(test), warn(clippy::too_many_lines, clippy::cognitive_complexity))]

mod ahead;
mod build;
mod built;
mod execute;
mod export;
mod facts;
mod hold;
pub mod image;
mod imports;
mod index;
mod install;
mod job;
mod lock;
pub mod locked;
pub mod packages;
mod pip;
pub mod private;
pub mod prune;
pub mod reach;
mod resolve;
pub mod rooted;
pub mod scratch;
mod sources;
pub mod store;
mod tree;
pub mod uv;
mod uv_failure;
mod uv_on_path;

pub use ahead::have_image;
pub use export::Exported;
pub use image::{choose_python, image_of, is_built_in, names_python};
pub use index::Environment;
pub use job::Say;
pub use sources::index_address;
pub use store::{FOLDER as STORE, folder as store_folder};
pub use uv::kept_variables;

use sandbox::files::{digest, random, write_atomically};

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}
