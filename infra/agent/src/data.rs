//! The data of a run: laid beside its view, kept for a later run, and the images among its outputs.

use contract::{Code, Failure};
use sandbox::beneath::{FileType, Folder, Limits};
use serde_json::Value;
use std::{
    fs,
    io::{self, BufRead, BufReader, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Component, Path, PathBuf},
};

/// The most that a run's data, or the images that its outputs refer to, may have.
const MOST: Limits = Limits {
    depth: 16,
    entries: 100_000,
    bytes: 4 << 30,
};

/// The most bytes of a run's data.
const MOST_DATA: u64 = 1 << 30;

fn bad(data: &Path, error: &io::Error) -> Failure {
    Failure::new(
        Code::RunBadData,
        format!(
            "The data {} cannot be read: {error}. Name a file or a folder of data",
            data.display()
        ),
    )
}

/// Copies data into the folder `to`: a file with the images that it names by a path beside it, or
/// all files of a folder.
///
/// # Errors
///
/// `Run.BadData`, final.
pub(crate) fn stage(data: &Path, to: &Path) -> Result<(), Failure> {
    let failed = |error: io::Error| bad(data, &error);
    let name = data
        .file_name()
        .ok_or_else(|| failed(io::ErrorKind::InvalidInput.into()))?;
    let about = fs::metadata(data).map_err(failed)?;
    fs::create_dir_all(to).map_err(failed)?;
    if about.is_dir() {
        return copy_folder(data, &to.join(name)).map_err(failed);
    }
    copy_file(data, &to.join(name))?;
    let beside = data.parent().unwrap_or(Path::new("."));
    for image in named_images(data).map_err(failed)? {
        let (from, to) = (beside.join(&image), to.join(&image));
        // One that is not there fails its own line.
        if from.is_file() {
            fs::create_dir_all(to.parent().unwrap_or(&to))
                .and_then(|()| fs::copy(&from, &to))
                .map_err(failed)?;
        }
    }
    Ok(())
}

fn copy_file(data: &Path, to: &Path) -> Result<(), Failure> {
    let shown = data.display();
    let bad = |error: io::Error| bad(data, &error);
    let too_large = || {
        Failure::new(
            Code::RunDataTooLarge,
            format!(
                "The data {shown} has more than {} MiB, which is the most for one run. Split it, and run each part",
                MOST_DATA >> 20
            ),
        )
    };
    // A pipe is not waited for.
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
    let opened = fs::File::options().read(true).custom_flags(flags).open(data);
    let source = opened.map_err(bad)?;
    let about = source.metadata().map_err(bad)?;
    if !about.is_file() {
        let message = format!("The data {shown} is no file and no folder. Name one");
        return Err(Failure::new(Code::RunBadData, message));
    }
    if about.len() > MOST_DATA {
        return Err(too_large());
    }
    let mut copy = fs::File::create(to).map_err(bad)?;
    // It may grow meanwhile.
    match io::copy(&mut source.take(MOST_DATA + 1), &mut copy) {
        Ok(bytes) if bytes > MOST_DATA => Err(too_large()),
        Ok(_) => Ok(()),
        Err(error) => Err(bad(error)),
    }
}

/// Copies a folder's files; a link in it is left out.
fn copy_folder(from: &Path, to: &Path) -> io::Result<()> {
    Folder::open(from)?.walk(&MOST, |entry| {
        if entry.kind != FileType::RegularFile {
            return Ok(());
        }
        let to = to.join(entry.path);
        fs::create_dir_all(to.parent().unwrap_or(&to))?;
        io::copy(&mut entry.open()?, &mut fs::File::create(to)?)?;
        Ok(())
    })
}

/// The images that a file of JSON lines names by a path below its own folder.
fn named_images(data: &Path) -> io::Result<Vec<PathBuf>> {
    let mut images = Vec::new();
    if !data
        .extension()
        .is_some_and(|ending| ending == "jsonl" || ending == "json")
    {
        return Ok(images);
    }
    for line in BufReader::new(fs::File::open(data)?).split(b'\n') {
        let line = line?;
        let names_one = line
            .windows(10)
            .any(|word| word == b"data:image" || word == b"image_file");
        if names_one && let Ok(value) = serde_json::from_slice(&line) {
            collect_images(&value, &mut images);
        }
    }
    Ok(images)
}

fn collect_images(value: &Value, images: &mut Vec<PathBuf>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| collect_images(item, images)),
        Value::Object(members) => {
            for (key, member) in members {
                let is_path = key.starts_with("data:image/") && key.ends_with(";path");
                let path = match member {
                    Value::String(path) if is_path => Some(path),
                    Value::Object(about) if key == "image_file" => about.get("path").and_then(|path| match path {
                        Value::String(path) => Some(path),
                        _ => None,
                    }),
                    _ => None,
                };
                let is_below = |path: &&String| {
                    Path::new(path)
                        .components()
                        .all(|part| matches!(part, Component::Normal(_) | Component::CurDir))
                };
                match path.filter(is_below) {
                    Some(path) => images.push(path.into()),
                    None => collect_images(member, images),
                }
            }
        }
        _ => {}
    }
}

/// Lays out what an earlier run gave and ran over: its outputs with the number of each line,
/// without the lines that failed.
///
/// # Errors
///
/// `Run.NoSuchRun`, final.
pub(crate) fn stage_earlier(run: &Path, to: &Path) -> Result<(), Failure> {
    let shown = run.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let lay_out = || -> io::Result<()> {
        fs::create_dir_all(to)?;
        let lines =
            |name: &str| Ok::<_, io::Error>(BufReader::new(fs::File::open(run.join("output").join(name))?).lines());
        let mut file = io::BufWriter::new(fs::File::create(to.join("outputs.jsonl"))?);
        for (output, about) in lines("outputs.jsonl")?.zip(lines("lines.jsonl")?) {
            let (output, about): (String, Value) = (output?, serde_json::from_str(&about?)?);
            if let Some(members) = output.strip_prefix('{') {
                let comma = if members == "}" { "" } else { ", " };
                writeln!(file, "{{\"line_number\": {}{comma}{members}", about["line_number"])?;
            }
        }
        file.flush()?;
        if run.join("data").is_dir() {
            copy_folder(&run.join("data"), &to.join("data"))?;
        }
        Ok(())
    };
    lay_out().map_err(|error| {
        let message = format!("The outputs of the run {shown} are not here: {error}. Run it on this machine first");
        Failure::new(Code::RunNoSuchRun, message)
    })
}

/// Keeps the images that a run's outputs refer to beside the outputs.
pub(crate) fn keep_images(from: &Path, to: &Path) -> io::Result<()> {
    let found = match Folder::open(from) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        found => found?,
    };
    found.walk(&MOST, |entry| {
        // promptflow names each by a random UUID. Nothing else is an image of an output.
        let is_image = |name: &str| name.split('.').next().is_some_and(|stem| stem.len() == 36);
        if entry.kind == FileType::RegularFile
            && entry.path.to_str().is_some_and(is_image)
            && entry.path.components().count() == 1
        {
            io::copy(&mut entry.open()?, &mut fs::File::create_new(to.join(entry.path))?)?;
        }
        Ok(())
    })
}
