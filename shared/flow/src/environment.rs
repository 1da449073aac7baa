//! The environment that a flow declares.

use crate::{
    Code, Failure,
    folder::{FlowFile, Folder, Reach, clean},
    project::{Described, PythonConstraint},
    requirements::{self, Requirements},
    yaml::type_of,
};
use lifecycle::session::{Named, Origin};
use serde_json::Value;
use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

/// The environment that a flow asks for.
///
/// # Source
///
/// "Each flow is self-contained and defines the base image and required Python packages in the flow
/// folder" (the specification, *Relationship*).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Environment {
    /// The base image: what the flow file says, else the default for what the folder holds.
    pub image: Named<String>,
    /// `None` if the flow needs no packages beyond the base image's.
    pub requirements: Option<Requirements>,
    pub described: Described,
}

/// Reads the environment from the flow file, and the requirements that it names, which may come by
/// an additional include. A `requirements.txt` that is there and not declared counts; in a folder
/// without a flow, and without one, what its project file says.
///
/// * `reach`: how far paths may lead: an include root (see [`crate::include_root`]), or nowhere.
///
/// # Errors
///
/// All final. `Flow.BadEnvironment`, `Flow.BadFlowFile`, `Flow.MissingRequirements`; about a line
/// `Flow.BadRequirement`, `Flow.LocalPackage`, `Flow.PinnedPromptflow`,
/// `Flow.VariableInRequirement`; about a path `Flow.PathLeadsOut`, `Flow.MissingInclude`,
/// `Flow.AbsoluteInclude`, `Flow.BadIncludes`, `Flow.TooLarge`, `Flow.Unreadable`; and what
/// [`crate::canonical`] says.
pub fn environment<'a>(folder: &Path, reach: impl Into<Reach<'a>>) -> Result<Environment, Failure> {
    let folder = Folder::open(folder, reach)?;
    let declared = match &folder.flow_file {
        Some(file) => Declared::of(file)?,
        None => Declared::default(),
    };
    let includes = folder.includes()?;
    let mut by = None;
    let mut requirements = match &declared.requirements {
        Some((written, place)) => {
            let target = clean(Path::new(written));
            if target.is_absolute() || target.starts_with("..") {
                return Err(Failure::new(
                    Code::FlowPathLeadsOut,
                    format!(
                        "{place}: python_requirements_txt {written} leads out of the flow folder. Add it to additional_includes, and name it \
                         here as it is then called in the flow folder."
                    ),
                ));
            }
            let source = folder.find(&includes, &target, place)?.ok_or_else(|| {
                Failure::new(
                    Code::FlowMissingRequirements,
                    format!(
                        "{place}: there is no file {written} in the flow folder or its additional_includes. Create it, or correct \
                         python_requirements_txt."
                    ),
                )
            })?;
            by = Some(target.display().to_string());
            Some(requirements::read(&folder, &includes, source, &target, true)?)
        }
        None => {
            let target = Path::new("requirements.txt");
            match folder.find(&includes, target, "requirements.txt")? {
                Some(source) => {
                    by = Some(target.display().to_string());
                    Some(requirements::read(&folder, &includes, source, target, false)?)
                }
                None if folder.flow_file.is_none() => crate::project::requirements(&folder)?,
                None => None,
            }
        }
    };
    if let Some(requirements) = &mut requirements {
        with_own_project(&folder, requirements)?;
        by = by.or_else(|| Some(requirements.file.file_name()?.to_string_lossy().into_owned()));
    }
    Ok(Environment {
        image: image_of(&folder, declared.image),
        described: describe(&folder, by, requirements.as_ref())?,
        requirements,
    })
}

/// Which file gave the packages, and what there is beside it.
fn describe(folder: &Folder, by: Option<String>, requirements: Option<&Requirements>) -> Result<Described, Failure> {
    let lines = requirements.iter().flat_map(|requirements| &requirements.lines);
    let read: BTreeSet<&str> = lines.map(|line| &*line.file).chain(by.as_deref()).collect();
    let passed_over = crate::project::descriptions(folder).into_iter();
    let passed_over = passed_over.filter(|name| !read.contains(&**name)).collect();
    let counts = crate::project::OF_A_PROJECT.iter().any(|name| read.contains(name));
    // A project file that does not count fails no flow.
    let own = match crate::project::read_own_project(folder) {
        Err(failure) if counts => return Err(failure),
        own => own.ok().flatten().unwrap_or_default(),
    };
    Ok(Described {
        commands: own.commands().into_iter().map(str::to_owned).collect(),
        lacks: if counts { own.lacks } else { Vec::new() },
        by,
        passed_over,
    })
}

/// Has the dependencies of the flow folder's own project stand where a line names it, as in `-e
/// .[dev]`, and those of one of its dependency groups where a line names that, as in `--group dev`.
/// Its modules are found in the folder.
fn with_own_project(folder: &Folder, requirements: &mut Requirements) -> Result<(), Failure> {
    let is_own =
        |line: &requirements::Line| matches!(line.option(), Some((requirements::OWN | requirements::GROUP, _)));
    if !requirements.lines.iter().any(is_own) {
        return Ok(());
    }
    // Beside other packages the file says itself which versions there are.
    let is_alone = requirements.lines.iter().all(|line| line.option().is_some());
    for line in std::mem::take(&mut requirements.lines) {
        match line.option() {
            Some((requirements::OWN, extras)) => requirements.lines.extend(crate::project::own(folder, &line, extras)?),
            Some((requirements::GROUP, name)) => requirements.lines.extend(crate::project::group(folder, &line, name)?),
            _ => requirements.lines.push(line),
        }
    }
    // Each part of a project names its indexes.
    let mut options = BTreeSet::new();
    requirements
        .lines
        .retain(|line| line.option().is_none() || options.insert((line.file.clone(), line.text.clone())));
    if is_alone {
        requirements.lines.extend(crate::project::read_locks(folder)?);
    }
    Ok(())
}

/// The file of the requirements, present or not: as the flow folder has it, and where the flow file
/// says so.
pub(crate) fn requirements_target(folder: &Folder) -> Result<(PathBuf, String), Failure> {
    let declared = folder.flow_file.as_ref().map(Declared::of).transpose()?;
    let named = declared.and_then(|declared| declared.requirements);
    let default = || ("requirements.txt".to_owned(), "requirements.txt".to_owned());
    let (written, place) = named.unwrap_or_else(default);
    let target = clean(Path::new(&written));
    if target.is_absolute() || target.starts_with("..") {
        return Err(folder.leads_out(&written, &place));
    }
    Ok((target, place))
}

/// The base image of a flow whose user names none: what its flow file says, else the default for
/// what the folder holds.
///
/// # Errors
///
/// All final. `Flow.BadEnvironment`, and what [`crate::kind`] says of the flow file.
///
/// # Source
///
/// "You can also specify the new base image under `environment` in the `flow.dag.yaml` file" (the
/// specification, *Change the base image*).
pub fn base_image(folder: &Path) -> Result<Named<String>, Failure> {
    let folder = Folder::open(folder, &crate::include_root(folder))?;
    let declared = folder.flow_file.as_ref().map(Declared::of).transpose()?;
    Ok(image_of(&folder, declared.and_then(|declared| declared.image)))
}

/// The constraints on the version of Python that files of the folder have: see
/// `project/pythons.rs`.
///
/// # Errors
///
/// All final. `Flow.BadProject`, and what [`crate::kind`] says of the flow file.
pub fn python_constraints(folder: &Path) -> Result<Vec<PythonConstraint>, Failure> {
    crate::project::python_constraints(&Folder::open(folder, &crate::include_root(folder))?)
}

fn image_of(folder: &Folder, declared: Option<String>) -> Named<String> {
    match declared {
        Some(name) => Named::new(name, Origin::FlowFile),
        None => default_of(folder).to_owned().into(),
    }
}

/// The base image where nobody names one.
///
/// # Errors
///
/// All final: what [`crate::kind`] says of the flow file.
pub fn default_image(folder: &Path) -> Result<&'static str, Failure> {
    Ok(default_of(&Folder::open(folder, &crate::include_root(folder))?))
}

fn default_of(folder: &Folder) -> &'static str {
    let is_flow = |name: &str| {
        [".prompty", ".dag.yaml", ".flex.yaml"]
            .iter()
            .any(|ending| name.ends_with(ending))
    };
    let mut entries = std::fs::read_dir(&folder.path).into_iter().flatten().flatten();
    if folder.flow_file.is_some() || entries.any(|entry| is_flow(&entry.file_name().to_string_lossy())) {
        DEFAULT_IMAGE
    } else {
        PLAIN_IMAGE
    }
}

/// The base image of a flow that names none.
///
/// # Source
///
/// "By default, we use the latest prompt flow base image" (the specification, *Change the base
/// image for compute session*).
pub const DEFAULT_IMAGE: &str = "promptflow";

/// The base image of a folder that holds no flow: nothing but Python.
pub const PLAIN_IMAGE: &str = "python";

/// `environment:` of a flow file.
#[derive(Default)]
struct Declared {
    image: Option<String>,
    /// As written, and where.
    requirements: Option<(String, String)>,
}

impl Declared {
    fn of(file: &FlowFile) -> Result<Self, Failure> {
        let bad = |key: &str, what: &str, should: &str| {
            Failure::new(
                Code::FlowBadEnvironment,
                format!("{}: {key} is {what}. It should be {should}.", file.place(key)),
            )
        };
        let keys = match file.value.get("environment") {
            None | Some(Value::Null) => return Ok(Self::default()),
            Some(Value::Object(keys)) => keys,
            Some(other) => {
                return Err(bad(
                    "environment",
                    type_of(other),
                    "a mapping with `python_requirements_txt: requirements.txt`, `image: …` or both",
                ));
            }
        };
        let text = |key: &str, should: &str| match keys.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) if !text.trim().is_empty() => Ok(Some(text.clone())),
            Some(Value::String(_)) => Err(bad(key, "empty", should)),
            Some(other) => Err(bad(key, type_of(other), should)),
        };
        let key = "python_requirements_txt";
        Ok(Self {
            image: text("image", "the name of a base image, as text")?,
            requirements: text(key, "the path of a requirements file, relative to the flow folder")?
                .map(|path| (path, file.place(key))),
        })
    }
}
