//! The base image of a session that is to come.

use crate::{
    image::{self, Found},
    rooted::unusable,
    store::Store,
};
use contract::Failure;
use sandbox::python::Python;
use std::path::Path;

/// Has a base image before the session that is to be made from it: pulled and unpacked, with a Python that a session can have.
///
/// * `python`: the Python of this machine.
///
/// # Errors
///
/// As [`crate::rooted::check`], and what is wrong with the image itself: `Image.BadLayer`, `Image.NoPython`, and the like.
pub async fn have_image(state: &Path, image: &str, python: Option<Python>) -> Result<(), Failure> {
    let Found::Image(name) = image::find(image, python.clone())? else {
        return Ok(());
    };
    let python = python.map_or_else(Python::find, Ok)?;
    let opened = Store::open(state, &image::PYTHON, python);
    let mut store = opened.map_err(|error| unusable(state, &error))?;
    store.root_in(&name, &|_| ()).await
}
