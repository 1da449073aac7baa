//! The base image of a session that is to come.

use crate::{
    facts::no_python,
    image::{self, Found},
    rooted::unusable,
    store::{Store, is_empty},
};
use contract::Failure;
use sandbox::python::Python;
use std::path::Path;

/// Has a base image before the session that is to be made from it: pulled and unpacked, with a
/// Python that a session can have.
///
/// * `python`: the Python of this machine; `folder`: the folder of the session, if it is known.
///
/// # Errors
///
/// As [`crate::rooted::check`], and what is wrong with the image itself: `Image.BadLayer`,
/// `Image.NoPython`, and the like.
pub async fn have_image(
    state: &Path,
    image: &str,
    python: Option<Python>,
    folder: Option<&Path>,
) -> Result<(), Failure> {
    let Found::Image(name) = image::find(image, python.clone())? else {
        return Ok(());
    };
    let python = python.map_or_else(Python::find, Ok)?;
    let opened = Store::open(state, &image::PYTHON, python);
    let mut store = opened.map_err(|error| unusable(state, &error))?;
    store.root_in(&name, &|_| ()).await?;
    let is_bare = store.root.as_ref().is_some_and(|root| !root.has_python());
    match is_bare && folder.is_some_and(needs_python) {
        true => Err(no_python(&name.to_string())),
        false => Ok(()),
    }
}

/// Whether a session of this folder has packages, or runs flows. What is wrong with the folder is
/// said elsewhere.
fn needs_python(folder: &Path) -> bool {
    let has_packages = || {
        let environment = flow::environment(folder, &flow::include_root(folder)).ok()?;
        Some(!is_empty(&environment.requirements?.lines))
    };
    flow::default_image(folder) == Ok(flow::DEFAULT_IMAGE) || has_packages().unwrap_or(false)
}
