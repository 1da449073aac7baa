//! The base images of one machine: those that are built in, each a set of packages on one of its
//! Pythons, and any OCI image.
//!
//! | name | what |
//! | --- | --- |
//! | `promptflow` | promptflow and promptflow-tools, for flows |
//! | `python` | nothing but Python, for any other folder |
//! | `promptflow:3.11`, `python:3.12` | the same on that Python, if the machine has it; `python:3.12-slim` is Docker's |
//! | any other | an image of a registry or an archive: see [`images::Name`]. Docker's own `python` is `docker.io/library/python` |

use contract::{Code, Failure};
use flow::PythonConstraint;
use sandbox::python::Python;

/// The packages of a base image.
#[derive(Debug, PartialEq, Eq)]
pub struct Base {
    pub(crate) name: &'static str,
    pub(crate) packages: &'static [&'static str],
    /// The same over an image: what it has may leave no room but for versions that are too old to
    /// run here.
    pub(crate) over_image: &'static [&'static str],
    /// The prefix of the names of its own packages. An install never changes their versions.
    pub(crate) family: Option<&'static str>,
    /// The modules that its processes load.
    pub(crate) imports: &'static [&'static str],
    /// Whether its processes have the flow runtime.
    pub runs_flows: bool,
}

/// `promptflow-tools` needs all of `promptflow`, and older flows import from it (`from promptflow
/// import tool`); the executor alone would be `promptflow-core`.
pub const PROMPTFLOW: Base = Base {
    name: flow::DEFAULT_IMAGE,
    packages: &["promptflow", "promptflow-tools"],
    over_image: &["promptflow>=1.15", "promptflow-tools>=1.4"],
    family: Some("promptflow"),
    imports: &[
        "promptflow.executor._script_executor",
        "promptflow._core.log_manager",
        "promptflow.core",
        "promptflow.tools",
    ],
    runs_flows: true,
};

pub(crate) const PYTHON: Base = Base {
    name: flow::PLAIN_IMAGE,
    packages: &[],
    over_image: &[],
    family: None,
    imports: &[],
    runs_flows: false,
};

/// The hosted service's own images: flows that name one mean what is called `promptflow` here,
/// whatever its tag is.
const HOSTED: [&str; 2] = [
    "mcr.microsoft.com/azureml/promptflow/",
    "azureml://registries/azureml/environments/promptflow",
];

/// The parts of a name: the packages, and the Python if it names one.
fn parse(image: &str) -> Option<(&'static Base, Option<&str>)> {
    if HOSTED.iter().any(|prefix| image.starts_with(prefix)) {
        return Some((&PROMPTFLOW, None));
    }
    let (name, version) = match image.split_once(':') {
        Some((name, "latest")) => (name, None),
        Some((name, version)) => (name, Some(version)),
        None => (image, None),
    };
    let base = match name {
        "promptflow" | "default" => &PROMPTFLOW,
        // `python:3.11-slim` is an image of Docker's.
        "python" if version.is_none_or(is_version) => &PYTHON,
        _ => return None,
    };
    Some((base, version))
}

fn is_version(tag: &str) -> bool {
    tag.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
}

/// Whether a name means a base image that is built in.
pub fn is_built_in(image: &str) -> bool {
    parse(image).is_some()
}

/// The meaning of a base image's name.
#[derive(Debug, PartialEq, Eq)]
pub enum Found {
    /// Packages that are built in, on a Python of this machine.
    BuiltIn(&'static Base, Python),
    /// An image of a registry or an archive.
    Image(images::Name),
}

/// The packages of the base image that a folder of this kind has when nobody names one.
///
/// * `default`: as [`flow::default_image`] says.
pub fn of_kind(default: &str) -> &'static Base {
    if default == PROMPTFLOW.name {
        &PROMPTFLOW
    } else {
        &PYTHON
    }
}

/// The image of a registry or an archive that a name means; `None` of a base image that is built
/// in.
///
/// # Errors
///
/// As [`find`] gives them: `Image.BadName`, `Install.NoSuchImage`, `Install.PythonMissing`.
pub fn image_of(name: &str) -> Result<Option<images::Name>, Failure> {
    Ok(match find(name, None)? {
        Found::BuiltIn(..) => None,
        Found::Image(name) => Some(name),
    })
}

/// Finds the base image of a name.
///
/// * `default`: the Python of an image that names none, if it is known already.
///
/// # Errors
///
/// `Image.BadName`, `Install.NoSuchImage`, `Install.PythonMissing`. Final until somebody names
/// another image or installs that Python.
pub fn find(image: &str, default: Option<Python>) -> Result<Found, Failure> {
    let there = || Python::all().iter().map(Python::minor).collect::<Vec<_>>().join(" or ");
    let Some((base, version)) = parse(image) else {
        return image.parse().map(Found::Image);
    };
    let python = match version {
        None => default.map_or_else(Python::find, Ok)?,
        Some(version) => {
            let fits = |python: &Python| python.minor() == version || python.version == version;
            let found = default.filter(fits).or_else(|| Python::all().into_iter().find(fits));
            found.ok_or_else(|| {
                let message = format!(
                    "The base image {image} needs Python {version}, and this machine has {}. Install that one, or name one that is there.",
                    there()
                );
                Failure::new(Code::InstallNoSuchImage, message)
            })?
        }
    };
    Ok(Found::BuiltIn(base, python))
}

/// Whether a name says itself which Python it is, or is an image that has its own.
pub fn names_python(image: &str) -> bool {
    parse(image).is_none_or(|(_, version)| version.is_some())
}

/// Chooses the Python of this machine that a folder asks for.
///
/// * `default`: the one to take if it is one of those.
///
/// # Errors
///
/// `Install.OtherPython`, `Install.PythonMissing`. Final until somebody installs that Python.
pub fn choose_python(default: Option<Python>, constraints: &[PythonConstraint]) -> Result<Python, Failure> {
    let default = default.map_or_else(Python::find, Ok)?;
    let fits = |python: &Python| constraints.iter().all(|each| each.admits(&python.version));
    if fits(&default) {
        return Ok(default);
    }
    let all = Python::all();
    let there = || all.iter().map(Python::minor).collect::<Vec<_>>().join(" or ");
    let refused = || {
        let all = constraints
            .iter()
            .map(|each| format!("{} asks for {}", each.place, each.specifiers));
        let all = all.collect::<Vec<_>>().join(", ");
        let message = format!(
            "No Python of this machine fits what the folder requires: {all}, and there is {}. Install one that fits, or change that file.",
            there()
        );
        Failure::new(Code::InstallOtherPython, message)
    };
    all.iter().find(|python| fits(python)).cloned().ok_or_else(refused)
}

/// Checks that the Python of an image is one that a folder's packages can have. A pin is of other
/// places than the image.
///
/// # Errors
///
/// `Install.OtherPython`. Final.
pub fn check_python(image: &str, python: &Python, constraints: &[PythonConstraint]) -> Result<(), Failure> {
    let broken = constraints
        .iter()
        .find(|each| !each.is_pin && !each.admits(&python.version));
    broken.map_or(Ok(()), |each| {
        let (place, specifiers, version) = (&each.place, &each.specifiers, &python.version);
        let message = format!("{place} asks for Python {specifiers}, and the base image {image} has {version}. Name an image that has one that fits, or change that file.");
        Err(Failure::new(Code::InstallOtherPython, message))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_packages_and_if_need_be_a_python() {
        for (image, base, version) in [
            ("promptflow", &PROMPTFLOW, None),
            ("default", &PROMPTFLOW, None),
            ("promptflow:latest", &PROMPTFLOW, None),
            ("promptflow:3.11", &PROMPTFLOW, Some("3.11")),
            ("python:3.12", &PYTHON, Some("3.12")),
            (
                "mcr.microsoft.com/azureml/promptflow/promptflow-runtime-stable:20240116.v1",
                &PROMPTFLOW,
                None,
            ),
            (
                "azureml://registries/azureml/environments/promptflow/versions/1",
                &PROMPTFLOW,
                None,
            ),
        ] {
            assert_eq!(parse(image), Some((base, version)), "{image}");
        }
        for image in [
            "",
            "mine",
            "registry.example/promptflow",
            "ubuntu:24.04",
            "python:3.11-slim",
        ] {
            assert_eq!(parse(image), None, "{image}");
        }
    }

    #[test]
    fn a_python_that_is_not_there_says_which_there_are_and_any_other_name_is_an_image() {
        let python = Python::find().unwrap();
        let failure = find("promptflow:2.7", None).unwrap_err();
        let there: Vec<_> = Python::all().iter().map(Python::minor).collect();
        let said = failure.to_string().replace(&there.join(" or "), "THESE");
        assert_eq!(
            said,
            "Install.NoSuchImage: The base image promptflow:2.7 needs Python 2.7, and this machine has THESE. Install that one, or name one that is there."
        );
        assert_eq!(
            find("ubuntu:24.04", None).unwrap(),
            Found::Image("ubuntu:24.04".parse().unwrap())
        );
        assert_eq!(find("Ubuntu", None).unwrap_err().error, Code::ImageBadName);
        match find(&format!("python:{}", python.minor()), None).unwrap() {
            Found::BuiltIn(base, found) => assert_eq!((base, found.minor()), (&PYTHON, python.minor())),
            found => panic!("{found:?}"),
        }
    }

    fn asks(text: &str, is_pin: bool) -> PythonConstraint {
        let folder = tempfile::tempdir().unwrap();
        let (file, text) = match is_pin {
            true => (".python-version", text.to_owned()),
            false => ("pyproject.toml", format!("[project]\nrequires-python = \"{text}\"\n")),
        };
        std::fs::write(folder.path().join(file), text).unwrap();
        flow::python_constraints(folder.path()).unwrap().remove(0)
    }

    #[test]
    fn the_python_is_one_that_the_folder_asks_for() {
        let default = Python::find().unwrap();
        let minor = default.minor();
        assert_eq!(choose_python(None, &[asks(&minor, true)]).unwrap(), default);
        for other in Python::all() {
            let chosen = choose_python(Some(default.clone()), &[asks(&other.minor(), true)]).unwrap();
            assert_eq!(chosen.minor(), other.minor());
        }
        let failure = choose_python(None, &[asks("2.7", true), asks(">=3.9", false)]).unwrap_err();
        let said = failure.to_string();
        let there: Vec<_> = Python::all().iter().map(Python::minor).collect();
        expect_test::expect!["Install.OtherPython: No Python of this machine fits what the folder requires: .python-version:1 asks for ==2.7.*, pyproject.toml:2 asks for >=3.9, and there is THESE. Install one that fits, or change that file."]
            .assert_eq(&said.replace(&there.join(" or "), "THESE"));
    }

    #[test]
    fn the_python_of_an_image_is_one_that_the_project_asks_for_and_need_not_be_a_pin() {
        let python = Python {
            version: "3.11.2".into(),
            ..Python::find().unwrap()
        };
        assert_eq!(
            check_python("a:1", &python, &[asks("3.12", true), asks(">=3.9", false)]),
            Ok(())
        );
        let failure = check_python("a:1", &python, &[asks(">=3.12", false)]).unwrap_err();
        expect_test::expect!["Install.OtherPython: pyproject.toml:2 asks for Python >=3.12, and the base image a:1 has 3.11.2. Name an image that has one that fits, or change that file."]
            .assert_eq(&failure.to_string());
    }
}
