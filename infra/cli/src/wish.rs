//! The flow, session or file that an argument names.

use crate::{
    client::{Client, Lineage, User},
    text::quoted,
    trouble::{NONE, Trouble, USAGE},
};
use contract::route::Route;
use contract::{Code, Failure, FlowRef, http::SessionView};
use std::path::{Path, PathBuf};

/// A flow, and how the user calls it.
#[derive(Clone, Debug)]
pub(crate) struct Flow {
    pub(crate) reference: FlowRef,
    /// As typed, so that it can be typed again.
    pub(crate) typed: String,
    /// The folder that was named; `None` where something else was.
    pub(crate) named: Option<PathBuf>,
}

impl Flow {
    pub(crate) fn key(&self) -> String {
        self.reference.key()
    }

    /// Its folder on this machine: the one that was named, or the one that its lineage says.
    pub(crate) fn folder(&self, user: &User) -> PathBuf {
        let named = self.named.clone();
        named.unwrap_or_else(|| user.folders.folder_of(&self.reference))
    }

    /// The last part of the folder's path.
    fn name(&self) -> &str {
        self.reference.lineage.rsplit('/').next().unwrap_or_default()
    }

    /// The default name of a webhook's rule for this flow.
    pub(crate) fn rule_name(&self, event: &str, then: &str) -> String {
        let name: String = format!("{}-{event}-{then}", self.name())
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '-' })
            .collect();
        let short = name.trim_matches('-');
        short[short.len().saturating_sub(80)..].trim_matches('-').to_owned()
    }

    /// An id that nobody has, for a command about this flow: its name or the word, and 48 random
    /// bits.
    pub(crate) fn new_id(&self, word: Option<&str>) -> String {
        let name: String = word
            .unwrap_or(self.name())
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
            .take(40)
            .collect();
        let name = name.trim_matches('-');
        format!("{}-{}", if name.is_empty() { "run" } else { name }, random::<6>())
    }
}

/// So many random bytes, in hexadecimal digits.
pub(crate) fn random<const BYTES: usize>() -> String {
    let mut bytes = [0; BYTES];
    getrandom::fill(&mut bytes).expect("the kernel gives random bytes");
    hex::encode(bytes)
}

/// The folder that is meant: a flow file stands for the one that it is in.
pub(crate) fn folder_of(typed: &Path) -> &Path {
    if flow::is_flow_file(typed) {
        typed
            .parent()
            .filter(|p| !p.as_os_str().is_empty())
            .unwrap_or(Path::new("."))
    } else {
        typed
    }
}

/// The flow in a folder. A flow file stands for the folder that it is in.
///
/// # Errors
///
/// Those of [`flow::canonical`] and [`flow::lineage`], and those of
/// [`Folders::lineage_of`](crate::moved::Folders::lineage_of). Final.
pub(crate) fn flow_at(typed: &Path, user: &User) -> Result<Flow, Box<Trouble>> {
    let (folder, typed) = canonical(typed)?;
    let named = PathBuf::from(&folder);
    let lineage = match user.lineage {
        Lineage::Repository => flow::lineage(&named).map_err(|failure| Trouble::of(USAGE, failure))?,
        Lineage::Folder => {
            let moved = user.folders.lineage_of((&user.workspace, &user.name), &named)?;
            moved.unwrap_or(folder)
        }
    };
    let reference = FlowRef {
        workspace: user.workspace.clone(),
        owner: user.name.clone(),
        lineage,
    };
    Ok(Flow {
        reference,
        typed,
        named: Some(named),
    })
}

/// The canonical path of a flow's folder, and how its user calls it.
///
/// # Errors
///
/// As [`flow_at`].
pub(crate) fn canonical(typed: &Path) -> Result<(String, String), Box<Trouble>> {
    let folder = folder_of(typed);
    let canonical = flow::canonical(folder).map_err(|failure| Trouble::of(USAGE, failure))?;
    let path = canonical.to_str().ok_or_else(|| {
        let message = format!(
            "The path of {} is not UTF-8. Rename the folder, or the one that it is in.",
            folder.display()
        );
        Trouble::new(USAGE, Code::FlowBadPath, message)
    })?;
    Ok((path.to_owned(), quoted(&folder.display().to_string())))
}

/// Finds the flow that is meant: by its folder, by the start of its session's key, or by a folder
/// that is gone. `None` if there is no such flow; then it may be the id of something.
///
/// # Errors
///
/// When more than one session's key starts so. Final.
pub(crate) fn find_flow(client: &Client, what: &str) -> Result<Option<Flow>, Box<Trouble>> {
    if Path::new(what).exists() {
        return flow_at(Path::new(what), &client.user).map(Some);
    }
    let is_key = (4..=32).contains(&what.len()) && what.bytes().all(|b| b.is_ascii_hexdigit());
    let gone = std::path::absolute(what).ok();
    if !is_key && !what.contains('/') {
        return Ok(None);
    }
    let is_meant = |session: &SessionView| {
        is_key && session.key.starts_with(&what.to_ascii_lowercase())
            || gone.as_deref() == Some(Path::new(&session.flow.lineage))
            || gone.as_ref() == Some(&client.user.folders.folder_of(&session.flow))
    };
    let mut meant = client.sessions(Route::Sessions)?;
    meant.retain(is_meant);
    if meant.is_empty() && is_key {
        meant = of_others(client, what)?;
    }
    match &meant[..] {
        [] => Ok(None),
        [one] => Ok(Some(Flow {
            reference: one.flow.clone(),
            typed: quoted(what),
            named: None,
        })),
        _ => Err(Trouble::new(
            USAGE,
            Code::SessionAmbiguous,
            format!("{} sessions have a key that starts with {what}", meant.len()),
        )
        .next("give more of the key, or the flow's folder; `pfsession list --all` shows both")),
    }
}

/// The sessions of the whole workspace whose keys begin so; none for a user who may not see them.
fn of_others(client: &Client, key: &str) -> Result<Vec<SessionView>, Box<Trouble>> {
    let key = key.to_ascii_lowercase();
    match client.sessions(Route::Sessions.with("users", "all").with("key", key)) {
        Err(trouble) if trouble.failure.error == Code::AccessDenied => Ok(Vec::new()),
        found => found,
    }
}

/// There is no flow, session, operation or run of this name.
pub(crate) fn nothing_of(what: &str) -> Box<Trouble> {
    Trouble::new(
        NONE,
        Code::SessionNone,
        format!("There is no folder, session, operation or run {what}"),
    )
    .next("see what there is: pfsession list --all; of others, if you are an owner: pfsession list --all --all-users")
}

pub(crate) fn data_file(path: &Path) -> Result<String, Box<Trouble>> {
    let shown = path.display();
    let found = std::fs::canonicalize(path).map_err(|e| {
        let failure = Failure::new(
            Code::RunNoData,
            format!("The data file {shown} cannot be read: {e}. Give the path of a file of JSON lines."),
        );
        Trouble::of(USAGE, failure)
    })?;
    found
        .into_os_string()
        .into_string()
        .map_err(|_| Trouble::new(USAGE, Code::RunNoData, format!("The path of {shown} is not UTF-8")))
}
