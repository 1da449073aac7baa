//! Runs as things: the list of a user's runs, what is changed of one, and the files of its folder
//! where this function sees them.

use crate::{
    answers::{absent, ok, problem, readable, wait_for},
    request::Request,
    snapshots::not_now,
};
use ::snapshots::RunStore;
use aws::Aws;
use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use contract::{
    FlowRef, Millis, Principal,
    http::{FilePart, RunChange, RunFile, RunFiles, RunSummary, Runs},
    row::{RunRow, RunStatus},
    stored::StoredFile,
};
use lifecycle::{Code, Failure, access::Action};
use serde_json::Value;
use shell::{Fault, Ports};
use std::{
    fs, io,
    os::unix::fs::FileExt,
    path::{Component, Path},
};

/// The default and the largest number of runs of a page.
const PAGE: (u64, u64) = (25, 100);
/// The most runs that are looked at for one page.
const MOST_LOOKED_AT: usize = 500;
/// The most bytes of one part of a file: an answer of a function has at most 6 MB.
const PART: usize = 2 << 20;
/// The most files that are listed of one run.
const MOST_FILES: usize = 60_000;

/// A page of the caller's own runs.
pub(crate) async fn list(aws: &Aws, caller: &Principal, request: &Request) -> Result<Value, Fault> {
    let Principal::User { name, workspace, .. } = caller else {
        return Ok(absent("list", "of runs"));
    };
    let limit = request.number("limit").unwrap_or(PAGE.0).clamp(1, PAGE.1) as usize;
    let status = match request.text("status").map(status_of) {
        Some(None) => return Ok(problem(400, bad_status())),
        status => status.flatten(),
    };
    let is_wanted = |row: &RunRow| {
        let tag = request.text("tag").is_none_or(|tag| match tag.split_once('=') {
            Some((name, value)) => row.wish.tags.get(name).is_some_and(|own| own == value),
            None => row.wish.tags.contains_key(tag),
        });
        let name = request
            .text("name")
            .is_none_or(|name| row.id.contains(name) || row.display_name().is_some_and(|own| own.contains(name)));
        tag && name
            && status.is_none_or(|status| row.status == status)
            && request.text("flow").is_none_or(|flow| row.flow == flow)
            && row.archived == (request.number("archived") == Some(1))
    };
    let mut runs = Vec::new();
    let mut after = request.text("after").map(str::to_owned);
    let mut looked_at = 0;
    loop {
        let page = aws.runs_of(workspace, name, after.as_deref()).await?;
        let is_last = page.is_empty();
        for (place, row) in page {
            after = Some(place);
            looked_at += 1;
            if is_wanted(&row)
                && let Some(flow) = row.of.clone()
            {
                runs.push(summary(row, flow));
            }
            if runs.len() == limit {
                break;
            }
        }
        if is_last || runs.len() == limit || looked_at >= MOST_LOOKED_AT {
            let next = after.filter(|_| !is_last);
            return Ok(ok(200, &Runs { runs, next }));
        }
    }
}

fn bad_status() -> Failure {
    let message = "A run's status is NotStarted, Running, Completed, Failed or Canceled.";
    Failure::new(Code::HttpBadStatus, message)
}

fn bad_change(why: &str) -> Failure {
    Failure::new(Code::HttpBadChange, format!("This is no change of a run: {why}."))
}

fn files_elsewhere(run: &RunRow) -> Failure {
    let message = match run.status.is_final() {
        false => "This service sees the files of a run after its end, and the run has not ended.",
        true => "This service does not see the files of this run: they are where its session was.",
    };
    Failure::new(Code::RunFilesElsewhere, message)
}

fn status_of(text: &str) -> Option<RunStatus> {
    serde_json::from_value(text.into()).ok()
}

fn summary(row: RunRow, flow: FlowRef) -> RunSummary {
    RunSummary {
        flow,
        status: row.status,
        accepted: row.accepted,
        started: row.started,
        ended: row.ended,
        display_name: row.display_name().map(str::to_owned),
        tags: row.wish.tags,
        lines: row.result.as_ref().map(|result| result.lines),
        failed_lines: row.result.as_ref().map(|result| result.failed_lines),
        failure: row.failure,
        archived: row.archived,
        id: row.id,
    }
}

/// Answers why nothing was done with a run.
fn refusal(id: &str, failure: Failure) -> Value {
    match failure.error {
        Code::RunNone => absent("run", id),
        Code::AccessDenied => problem(403, failure),
        _ => problem(409, failure),
    }
}

/// Reads what is to be changed of a run, or says why it is no change.
pub(crate) fn read_change(body: &str) -> Result<RunChange, String> {
    serde_json::from_str(body).map_err(|error| error.to_string())
}

/// A run, after its end or after `wait`.
pub(crate) async fn read(
    aws: &Aws,
    caller: &Principal,
    id: &str,
    request: &Request,
    wait: Millis,
) -> Result<Value, Fault> {
    // The sender of a command asks for its run, and not for another of that name.
    let is_other = |row: &RunRow| {
        request
            .text("wish")
            .is_some_and(|wish| row.digest.as_deref().is_some_and(|own| own != wish) || row.deleted.is_some())
    };
    let found = wait_for(
        aws,
        wait,
        || aws.load_run(id),
        |row| row.as_ref().is_some_and(|row| row.status.is_final() || is_other(row)),
    );
    let Some(row) = found.await?.filter(|row| row.deleted.is_none() || is_other(row)) else {
        return Ok(absent("run", id));
    };
    if is_other(&row) {
        return Ok(problem(409, row.name_taken()));
    }
    readable(aws, caller, &row.flow, "run", id, || ok(200, &row)).await
}

/// Gives it another name for people, or has lists leave it out.
pub(crate) async fn change(aws: &Aws, caller: &Principal, id: &str, request: &Request) -> Result<Value, Fault> {
    let change = match read_change(&request.body().unwrap_or_default()) {
        Ok(change) => change,
        Err(why) => return Ok(problem(400, bad_change(&why))),
    };
    Ok(match shell::change_run(aws, caller, id, &change).await? {
        Ok(row) => ok(200, &row),
        Err(failure) => refusal(id, failure),
    })
}

/// Removes it and all that is its own.
pub(crate) async fn delete(aws: &Aws, caller: &Principal, id: &str) -> Result<Value, Fault> {
    Ok(match shell::delete_run(aws, caller, id).await? {
        Ok(row) => ok(200, &row),
        Err(failure) => refusal(id, failure),
    })
}

/// The files of its folder, or a part of one.
pub(crate) async fn files(
    aws: &Aws,
    caller: &Principal,
    id: &str,
    request: &Request,
    wait: Millis,
) -> Result<Value, Fault> {
    let row = match shell::find_run(aws, caller, id, Action::Read).await? {
        Ok(row) => row,
        Err(failure) => return Ok(refusal(id, failure)),
    };
    let Some(folder) = aws.run_files.folder(id) else {
        return stored_files(&aws.run_files, &row, request).await;
    };
    let Some(path) = request.text("path") else {
        let mut files = Vec::new();
        if list_below(&folder, &folder, &mut files).is_err() {
            return Ok(absent("folder of the run", id));
        }
        files.sort_by(|a, b| a.path.cmp(&b.path));
        return Ok(ok(200, &RunFiles { files }));
    };
    let from = request.number("offset").unwrap_or(0);
    let read = || async {
        // Whether it has ended is read first: what it wrote before its end is there by then.
        let ended = aws.load_run(id).await?.is_none_or(|row| row.status.is_final());
        Ok(part_of(&folder, path, from).map(|(content, is_end)| (content, is_end && ended)))
    };
    let is_there = |part: &io::Result<(Vec<u8>, bool)>| match part {
        Ok((content, ended)) => *ended || !content.is_empty(),
        Err(_) => true,
    };
    Ok(match wait_for(aws, wait, read, is_there).await? {
        Ok((content, ended)) => ok(
            200,
            &FilePart {
                next: from + content.len() as u64,
                content: BASE64.encode(content),
                download: None,
                ended,
            },
        ),
        Err(_) => absent("file of the run", path),
    })
}

/// The files that a run has in the store, or where a part of one is to be read.
async fn stored_files(files: &RunStore, row: &RunRow, request: &Request) -> Result<Value, Fault> {
    let Some((store, place)) = files.stored(row) else {
        return Ok(problem(404, files_elsewhere(row)));
    };
    let index = match store.run_index(&place).await {
        Ok(index) => index,
        Err(::snapshots::Fault::Wrong(failure)) => return Ok(problem(404, failure)),
        Err(fault) => return Err(not_now(fault)),
    };
    let Some(path) = request.text("path") else {
        let files = index.files.into_iter();
        let files = files.map(|StoredFile { path, bytes, .. }| RunFile { path, bytes });
        return Ok(ok(200, &RunFiles { files: files.collect() }));
    };
    let Some(file) = index.files.iter().find(|file| file.path == path) else {
        return Ok(absent("file of the run", path));
    };
    let from = request.number("offset").unwrap_or(0);
    let part = store.download(&place, &index, file, from).await.map_err(not_now)?;
    let (download, next) = part.map_or((None, from), |(download, next)| (Some(download), next));
    Ok(ok(
        200,
        &FilePart {
            content: String::new(),
            download,
            next,
            ended: next >= file.bytes,
        },
    ))
}

/// A part of a file below `folder`, and whether it reaches the file's end. No link is followed.
fn part_of(folder: &Path, path: &str, from: u64) -> io::Result<(Vec<u8>, bool)> {
    let no_file = || io::Error::from(io::ErrorKind::NotFound);
    let mut place = folder.to_owned();
    for part in Path::new(path).components() {
        let Component::Normal(name) = part else {
            return Err(no_file());
        };
        place.push(name);
        if fs::symlink_metadata(&place)?.is_symlink() {
            return Err(no_file());
        }
    }
    let file = fs::File::open(&place)?;
    let about = file.metadata()?;
    if !about.is_file() {
        return Err(no_file());
    }
    let mut content = vec![0; PART.min(about.len().saturating_sub(from) as usize)];
    let mut filled = 0;
    while filled < content.len() {
        match file.read_at(&mut content[filled..], from + filled as u64)? {
            0 => break,
            read => filled += read,
        }
    }
    content.truncate(filled);
    let is_end = from + filled as u64 >= about.len();
    Ok((content, is_end))
}

fn list_below(root: &Path, folder: &Path, files: &mut Vec<RunFile>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let about = fs::symlink_metadata(entry.path())?;
        if about.is_dir() {
            list_below(root, &entry.path(), files)?;
        } else if about.is_file()
            && files.len() < MOST_FILES
            && let Ok(path) = entry.path().strip_prefix(root)
            && let Some(path) = path.to_str()
        {
            files.push(RunFile {
                path: path.to_owned(),
                bytes: about.len(),
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_done_with_a_run_says_why() {
        let row = |sample: &str| -> RunRow {
            let path = format!(
                "{}/../../events/table/run/valid/{sample}.json",
                env!("CARGO_MANIFEST_DIR")
            );
            serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
        };
        let all = [
            bad_status(),
            bad_change("expected value at line 1 column 1"),
            files_elsewhere(&row("running")),
            files_elsewhere(&row("completed")),
        ]
        .map(|failure| failure.to_string());
        expect_test::expect![[r#"
            Http.BadStatus: A run's status is NotStarted, Running, Completed, Failed or Canceled.
            Http.BadChange: This is no change of a run: expected value at line 1 column 1.
            Run.FilesElsewhere: This service sees the files of a run after its end, and the run has not ended.
            Run.FilesElsewhere: This service does not see the files of this run: they are where its session was."#]]
        .assert_eq(&all.join("\n"));
    }

    #[test]
    fn a_part_is_of_a_file_below_the_folder_and_follows_no_link() {
        let folder = std::env::temp_dir().join(format!("pfsession-api-{}", std::process::id()));
        let run = folder.join("run");
        fs::create_dir_all(run.join("output")).unwrap();
        fs::write(folder.join("secret"), "secret").unwrap();
        fs::write(run.join("output/a.txt"), "0123456789").unwrap();
        std::os::unix::fs::symlink(folder.join("secret"), run.join("link")).unwrap();
        std::os::unix::fs::symlink(&folder, run.join("up")).unwrap();
        let part = |path: &str, from| part_of(&run, path, from).ok();
        assert_eq!(part("output/a.txt", 0), Some((b"0123456789".to_vec(), true)));
        assert_eq!(part("output/a.txt", 8), Some((b"89".to_vec(), true)));
        assert_eq!(part("output/a.txt", 99), Some((Vec::new(), true)));
        for wrong in ["../secret", "link", "up/secret", "/etc/passwd", "output", "", "none"] {
            assert_eq!(part(wrong, 0), None, "{wrong}");
        }
        let mut files = Vec::new();
        list_below(&run, &run, &mut files).unwrap();
        assert_eq!(files.len(), 1);
        fs::remove_dir_all(&folder).unwrap();
    }
}
