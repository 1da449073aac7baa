//! Whether what the base image's processes load can still be loaded in an environment.

use crate::{execute::Ended, job::Job, lock::Change, scratch::Scratch, store::Store, words};
use contract::{Code, Failure, agent::LineKind};
use sandbox::Overlay;
use serde::Deserialize;
use std::{
    fs,
    path::{Path, PathBuf},
};

/// Imports modules, with further folders of packages before those of the environment. Says in one
/// line which one fails, why, and the packages that had a part in it.
const IMPORT: &str = r#"
import importlib, json, sys, traceback
sys.path[:0] = sys.argv[2:]
try:
    for name in sys.argv[1].split():
        importlib.import_module(name)
except BaseException as error:
    from importlib.metadata import packages_distributions
    owners = packages_distributions()
    modules = [frame.f_globals.get('__name__', '') for frame, _ in traceback.walk_tb(error.__traceback__)]
    modules.append(getattr(error, 'name', None) or '')
    packages = [package for module in reversed(modules) for package in owners.get(module.partition('.')[0], ())]
    traceback.print_exc()
    why = f'{type(error).__name__}: {error}'.splitlines()[0][:300]
    sys.exit('pfsession: ' + json.dumps({'module': name, 'why': why, 'packages': packages}))
"#;

/// The output of [`IMPORT`] for a module that it could not import.
#[derive(Deserialize)]
struct NotImported {
    module: String,
    why: String,
    packages: Vec<String>,
}

impl Store {
    /// Loads what the base image's processes load, as a session of this environment will.
    ///
    /// * `above`: the layers over it, the uppermost first.
    ///
    /// # Errors
    ///
    /// `Install.Conflict`, with the package that breaks it. Final until the requirements name
    /// another one.
    pub(crate) async fn check_imports(
        &self,
        job: &Job<'_>,
        environment: &Path,
        above: &[PathBuf],
        changed: &[Change],
    ) -> Result<(), Failure> {
        if self.base.imports.is_empty() {
            return Ok(());
        }
        (job.say)(LineKind::Stage, format!("importing {}", self.base.name));
        let scratch = Scratch::new(&self.index.path("")).map_err(|error| self.index.failure(error))?;
        let (upper, work) = (scratch.0.join("upper"), scratch.0.join("work"));
        for folder in [&upper, &work] {
            fs::create_dir(folder).map_err(|error| self.index.failure(error))?;
        }
        let python = environment.join("bin/python").display().to_string();
        let mut execute = words(&[&python, "-I", "-c", IMPORT, &self.base.imports.join(" ")]);
        let mut sandbox = self.sandbox(job);
        if self.namespaces.get() {
            let lower = above.iter().cloned().chain([environment.to_owned()]).collect();
            sandbox.overlay = Some(Overlay {
                lower,
                upper,
                work,
                at: vec![environment.to_owned()],
            });
        } else {
            let sites = above.iter().map(|layer| layer.join(self.python.site_packages()));
            execute.extend(sites.map(|site| site.display().to_string()));
            sandbox
                .read
                .extend(above.iter().cloned().chain([environment.to_owned()]));
        }
        sandbox.execute = execute;
        match self.execute(sandbox, job).await? {
            Ended::Well => Ok(()),
            Ended::Failed { output, .. } => Err(import_failure(self.base.name, &output, changed, job)),
        }
    }
}

fn import_failure(base: &str, output: &str, changed: &[Change], job: &Job<'_>) -> Failure {
    let said = output.lines().rev().find_map(|line| line.strip_prefix("pfsession: "));
    let said = said
        .and_then(|text| serde_json::from_str(text).ok())
        .unwrap_or(NotImported {
            module: base.to_owned(),
            why: "the import ended without a word".to_owned(),
            packages: Vec::new(),
        });
    let seen = said.packages.iter().map(|name| flow::normalize_name(name));
    let seen: Vec<&Change> = seen
        .filter_map(|name| changed.iter().find(|change| change.name == name))
        .collect();
    // The innermost that is not the base image's; else any of them may be it.
    let suspects: Vec<&Change> = match seen.first() {
        Some(first) => vec![first],
        None => changed.iter().filter(|change| change.had.is_some()).take(5).collect(),
    };
    let named: Vec<String> = suspects
        .iter()
        .map(|change| match &change.had {
            Some(had) => format!("{} {} (the base image has {had})", change.name, change.version),
            None => format!("{} {}", change.name, change.version),
        })
        .collect();
    let place = suspects.first().and_then(|change| job.place(&change.name));
    let place = place.map(|place| format!("{place}: ")).unwrap_or_default();
    let named = match named.is_empty() {
        true => "these packages".to_owned(),
        false => named.join(", "),
    };
    Failure::new(
        Code::InstallConflict,
        format!(
            "{place}{} of the base image {base} cannot be imported beside {named}: {}. Take another version in the requirements, and start again. \
             The whole output is in {}.",
            said.module,
            said.why.trim_end_matches('.'),
            job.log
        ),
    )
}
