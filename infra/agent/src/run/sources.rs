//! The inputs of a run beside its flow: data, and what earlier runs gave.

use super::{Work, data_name, folder};
use crate::{data, folders::Folders, records, service::Service};
use contract::{Code, Failure, command::RunWish};
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};

/// Lays out what a run works on beside the flow: data, and what earlier runs gave. Returns where
/// the run finds each.
pub(super) fn stage(
    folders: &Folders,
    work: &Work,
    run: &str,
    wish: &RunWish,
    staging: &Path,
    place: &Path,
) -> Result<Map<String, Value>, Failure> {
    let results = folder(&folders.state, run);
    let find = |earlier: &str| find_earlier(folders, work.service.as_ref(), run, earlier);
    let mut sources = Map::new();
    if let Some(data) = &work.data {
        let name = data_name(data.path());
        data::stage(data.path(), &staging.join("data"))
            .and_then(|()| data::stage(data.path(), &results.join("data")))?;
        sources.insert("data".into(), json!(place.join("data").join(name)));
    }
    if let Some(resumed) = &wish.resume_from {
        let resumed = find(resumed)?;
        let output = results.join("output");
        records::stage(&resumed, &staging.join("resumed"), &output).map_err(|error| {
            let shown = resumed.display();
            let message = format!(
                "What the earlier run has completed cannot be taken over from {shown}: {error}. Run the flow anew"
            );
            Failure::new(Code::RunNoSuchRun, message)
        })?;
    }
    if let Some(earlier) = &wish.run {
        let earlier = find(earlier)?;
        data::stage_earlier(&earlier, &staging.join("earlier"))?;
        sources.insert("run.outputs".into(), json!(place.join("earlier/outputs.jsonl")));
        if earlier.join("data").is_dir() {
            sources.insert("run.inputs".into(), json!(place.join("earlier/data")));
        }
    }
    Ok(sources)
}

/// Finds the folder of an earlier run. The files of a run elsewhere come from the store, and go
/// with the session.
fn find_earlier(folders: &Folders, service: Option<&Service>, run: &str, earlier: &str) -> Result<PathBuf, Failure> {
    let here = folder(&folders.state, earlier);
    let Some(service) = service.filter(|_| !here.is_dir()) else {
        return Ok(here);
    };
    let fetched = folders.session.join("earlier").join(earlier);
    if !fetched.is_dir() {
        service.fetch_run(run, earlier, &fetched)?;
    }
    Ok(fetched)
}
