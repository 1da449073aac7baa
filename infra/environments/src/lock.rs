//! Locks as text: which packages a resolver chose, at which versions, with which hashes.
//!
//! No I/O. Build scripts run beside the resolver, so a lock is checked line by line before it
//! counts ([`check`]).

use flow::normalize_name;
use std::collections::{BTreeMap, BTreeSet};

/// By package, the packages that ask for it.
pub(crate) type AskedBy = BTreeMap<String, Vec<String>>;

/// Takes the annotations out of what a resolver wrote: the lock alone, and which package asks for
/// which.
pub(crate) fn without_annotations(lock: &str) -> (String, AskedBy) {
    let (mut plain, mut asked_by, mut package) = (String::new(), AskedBy::new(), String::new());
    for line in lock.lines() {
        // Behind a package without hashes, else in a line of its own.
        let (head, askers) = line.split_once("# via ").unwrap_or((line, ""));
        let head = head.trim_end();
        if let Some((name, _)) = pin(head) {
            package = name;
        }
        let askers = askers
            .split(", ")
            .filter(|asker| !asker.starts_with('-') && !asker.is_empty());
        let askers: Vec<String> = askers.map(str::to_owned).collect();
        if !askers.is_empty() {
            asked_by.insert(package.clone(), askers);
        }
        if !head.is_empty() || line.is_empty() {
            plain.push_str(head);
            plain.push('\n');
        }
    }
    (plain, asked_by)
}

/// Checks that a lock has only lines that a resolver writes. Build scripts run beside the resolver,
/// and what is in the lock is read by the next uv as a requirements file, in which a line can name
/// other files, indexes and folders.
///
/// # Errors
///
/// The line that is something else.
pub(crate) fn check(lock: &str) -> Result<(), &str> {
    lock.split('\n').find(|line| !is_of_a_lock(line)).map_or(Ok(()), Err)
}

fn is_of_a_lock(line: &str) -> bool {
    if !line.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
        return false;
    }
    let (text, comment) = line
        .split_once('#')
        .filter(|(before, _)| before.is_empty() || before.ends_with(' '))
        .unwrap_or((line, ""));
    // A comment that goes on in the next line would take that with it.
    if comment.ends_with('\\') {
        return false;
    }
    let text = text.strip_suffix('\\').unwrap_or(text).trim_end();
    let inner = text.trim_start();
    if inner.is_empty() {
        return !line.trim_end().ends_with('\\');
    }
    if inner != text {
        let hash = inner.strip_prefix("--hash=").and_then(|hash| hash.split_once(':'));
        return hash.is_some_and(|(kind, hex)| {
            kind.bytes().all(|byte| byte.is_ascii_alphanumeric())
                && !hex.is_empty()
                && hex.bytes().all(|byte| byte.is_ascii_hexdigit())
        });
    }
    let (package, marker) = text.split_once(" ;").unwrap_or((text, ""));
    let is_name = |name: &str| {
        name.starts_with(|c: char| c.is_ascii_alphanumeric())
            && name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-_.[],".contains(&byte))
    };
    let is_version = |version: &str| {
        let byte = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.+!".contains(&byte);
        !version.is_empty() && version.bytes().all(byte)
    };
    let is_package = match (package.split_once("=="), package.split_once(" @ ")) {
        (_, Some((name, url))) => is_name(name) && url::Url::parse(url).is_ok_and(|url| is_fetched(&url)),
        (Some((name, version)), None) => is_name(name) && is_version(version),
        (None, None) => false,
    };
    is_package && !marker.contains(['\\', '#', '$'])
}

/// Whether it is the name of a package.
pub(crate) fn is_name(name: &str) -> bool {
    let is_end = |c: char| c.is_ascii_alphanumeric();
    name.starts_with(is_end)
        && name.ends_with(is_end)
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

/// Whether a package's URL is one that is fetched over a network, with no credential in it.
pub(crate) fn is_fetched(url: &url::Url) -> bool {
    let schemes = ["http", "https", "git+http", "git+https", "git+ssh"];
    let user = if url.scheme() == "git+ssh" { "git" } else { "" };
    schemes.contains(&url.scheme())
        && url.host_str().is_some_and(|host| !host.is_empty())
        && ["", user].contains(&url.username())
        && url.password().is_none()
}

/// A lock in which the packages that the requirements name with hashes have these and no others:
/// what is installed is checked against them.
///
/// # Errors
///
/// The line that promises hashes of which the index has none.
pub(crate) fn with_own_hashes<'a>(lock: &str, lines: &'a [flow::Line]) -> Result<String, &'a flow::Line> {
    let hashes = |line: &flow::Line| -> Vec<String> {
        let words = line
            .text
            .split_whitespace()
            .filter_map(|word| word.strip_prefix("--hash="));
        words
            .map(|hash| hash.trim_matches(['"', '\'']).to_ascii_lowercase())
            .collect()
    };
    let mut own: BTreeMap<String, (&flow::Line, Vec<String>)> = BTreeMap::new();
    for line in lines.iter().filter(|line| line.option().is_none()) {
        let promised = hashes(line);
        if let Some(name) = name_of(&line.text).filter(|_| !promised.is_empty()) {
            own.entry(name).or_insert_with(|| (line, Vec::new())).1.extend(promised);
        }
    }
    let mut out = String::new();
    let mut blocks = lock.split_inclusive('\n').peekable();
    while let Some(head) = blocks.next() {
        let mut block = vec![head];
        while let Some(line) = blocks.next_if(|line| line.starts_with(' ')) {
            block.push(line);
        }
        let Some((line, promised)) = pin(head.trim_end()).and_then(|(name, _)| own.get(&name)) else {
            out.extend(block);
            continue;
        };
        // The index says SHA-256 alone; another kind is compared when the file is there.
        let is_of_index =
            |hash: &String| !hash.starts_with("sha256:") || block.iter().any(|known| known.contains(&**hash));
        let promised: Vec<&String> = promised.iter().filter(|hash| is_of_index(hash)).collect();
        if promised.is_empty() {
            return Err(line);
        }
        out.push_str(head.trim_end_matches(['\\', '\n', ' ']));
        for hash in promised {
            out.push_str(&format!(" \\\n    --hash={hash}"));
        }
        out.push('\n');
    }
    Ok(out)
}

/// The first package of a lock, with its version, for which no line promises a hash.
pub(crate) fn without_promise(lock: &str, lines: &[flow::Line]) -> Option<(String, String)> {
    let promised = lines
        .iter()
        .filter(|line| line.option().is_none() && line.text.contains(" --hash="));
    let promised: BTreeSet<String> = promised.filter_map(|line| name_of(&line.text)).collect();
    let mut packages = lock.lines().filter_map(pin);
    packages.find(|(name, _)| !promised.contains(&normalize_name(name)))
}

/// The normalised name that a requirement begins with.
pub(crate) fn name_of(requirement: &str) -> Option<String> {
    let end = requirement.find(|c: char| !(c.is_ascii_alphanumeric() || "-_.".contains(c)));
    let name = normalize_name(&requirement[..end.unwrap_or(requirement.len())]);
    (!name.is_empty()).then_some(name)
}

/// The name and the version of a line of a lock that begins a package; of one by URL, what its file
/// is called.
pub(crate) fn pin(line: &str) -> Option<(String, String)> {
    let line = line.trim_end_matches(['\\', ' ']);
    if !line.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        return None;
    }
    let line = line.split(" ;").next()?;
    if let Some((name, version)) = line.split_once("==") {
        return Some((name.to_owned(), version.split(' ').next()?.to_owned()));
    }
    let (name, url) = line.split_once(" @ ")?;
    Some((name.to_owned(), url.rsplit('/').next()?.to_owned()))
}

/// The lock of what is there when one lock is installed over another.
pub(crate) fn over(below: &str, lock: &str) -> String {
    let names: BTreeMap<String, String> = lock.lines().filter_map(pin).collect();
    let stays =
        |line: &&str| pin(line).is_some_and(|(name, version)| names.get(&name).is_none_or(|new| *new == version));
    let kept: String = below.lines().filter(stays).map(|line| format!("{line}\n")).collect();
    kept + &blocks_not_in(below, lock)
}

/// `name==version` of every package in a lock.
pub(crate) fn pins(lock: &str) -> BTreeSet<String> {
    let lines = lock
        .lines()
        .filter(|line| line.starts_with(|c: char| c.is_ascii_alphanumeric()));
    lines
        .map(|line| line.split([' ', ';', '\\']).next().unwrap_or_default().to_owned())
        .collect()
}

/// The option by which uv insists on hashes, where a lock has them all. The pages that
/// `--find-links` names have none to offer.
pub(crate) fn require_hashes(lock: &str) -> Option<String> {
    let mut lines = lock.lines().peekable();
    let mut bare = false;
    while let Some(line) = lines.next() {
        let begins = pin(line).is_some();
        bare |= begins
            && !lines
                .peek()
                .is_some_and(|next| next.trim_start().starts_with("--hash="));
    }
    (!bare).then(|| "--require-hashes".to_owned())
}

/// The packages of a lock, with their hashes, that are not at that version in the base's.
pub(crate) fn blocks_not_in(base: &str, lock: &str) -> String {
    let base = pins(base);
    let mut new = false;
    let mut text = String::new();
    for line in lock.lines() {
        if line.starts_with(|c: char| c.is_ascii_alphanumeric()) {
            new = pins(line).is_disjoint(&base);
        }
        if new {
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}

/// A package that the base image does not have at this version.
pub(crate) struct Change {
    pub(crate) name: String,
    pub(crate) version: String,
    /// The base image's version, if it has the package.
    pub(crate) had: Option<String>,
}

/// The packages of a lock that are not in the base's at the same version.
pub(crate) fn changes(base: &str, lock: &str) -> Vec<Change> {
    let base: BTreeMap<String, String> = base.lines().filter_map(pin).collect();
    let all = lock.lines().filter_map(pin);
    all.filter(|(name, version)| base.get(name) != Some(version))
        .map(|(name, version)| Change {
            had: base.get(&name).cloned(),
            name,
            version,
        })
        .collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) const LOCK: &str = "flask==3.1.3 \\\n    --hash=sha256:00 \\\n    --hash=sha256:11\n    # via -r requirements.txt\nblinker==1.9.0 \\\n    --hash=sha256:22\n    # via flask, -c constraints.txt, other\ncolorama==0.4 ; sys_platform == 'win32' \\\n    --hash=sha256:33\nmine @ https://host/a/mine-1.0.whl \\\n    --hash=sha256:44\n";

    pub(crate) fn line(number: usize, text: &str, constraint: bool) -> flow::Line {
        flow::Line {
            file: "requirements.txt".into(),
            number,
            text: text.into(),
            constraint,
        }
    }

    #[test]
    fn a_lock_loses_its_annotations_and_keeps_who_asks_for_what() {
        let (lock, asked_by) = without_annotations(LOCK);
        assert!(
            !lock.contains("via") && lock.lines().count() == LOCK.lines().count() - 2,
            "{lock}"
        );
        assert_eq!(
            asked_by,
            BTreeMap::from([("blinker".into(), vec!["flask".into(), "other".into()])])
        );
    }

    #[test]
    fn an_annotation_behind_a_package_without_hashes_is_none_of_the_lock() {
        let (lock, asked_by) = without_annotations("a==1          # via -r /scratch/requirements.txt, b\nb==2\n");
        assert_eq!(lock, "a==1\nb==2\n");
        assert_eq!(asked_by, BTreeMap::from([("a".into(), vec!["b".into()])]));
    }

    #[test]
    fn a_hash_that_a_line_promises_is_the_only_one_that_its_file_may_have() {
        let (lock, _) = without_annotations(LOCK);
        let good = [line(1, "Flask==3.1.3  --hash=sha256:11 --hash=sha256:99", false)];
        let own = with_own_hashes(&lock, &good).unwrap();
        assert!(
            own.starts_with("flask==3.1.3 \\\n    --hash=sha256:11\nblinker"),
            "{own}"
        );
        assert_eq!(own.len(), lock.len() - "    --hash=sha256:00 \\\n".len());
        let bad = [line(1, "six", false), line(2, "flask==3.1.3 --hash=sha256:99", false)];
        assert_eq!(with_own_hashes(&lock, &bad).unwrap_err().number, 2);
        // Of another kind than the index says: uv compares it with the file.
        let other = [line(1, "flask==3.1.3 --hash=sha512:99", false)];
        assert!(
            with_own_hashes(&lock, &other)
                .unwrap()
                .starts_with("flask==3.1.3 \\\n    --hash=sha512:99\nblinker")
        );
        assert_eq!(with_own_hashes(&lock, &[]).unwrap(), lock);
    }

    #[test]
    fn a_lock_has_only_lines_that_a_resolver_writes() {
        assert_eq!(check(LOCK), Ok(()));
        assert_eq!(check("a==1          # via -r requirements.txt, b\nb==2 # x\n"), Ok(()));
        assert_eq!(
            check("a[b,c]==1!2.0+local.1\nb @ git+https://host/b@v1#subdirectory=x\n\n"),
            Ok(())
        );
        for bad in [
            "-r /etc/passwd",
            "--find-links http://x/,/host",
            " --find-links=/host",
            "a==1 --find-links /host",
            "a==1 \\\n    --hash=sha256:00 -f /host",
            "a==1\r-r /etc/passwd",
            "a==1 ; x == '\u{85}'",
            "a==1 ; x == '${HOME}'",
            "a @ file:///etc/passwd",
            "a @ https://me:word@host/a.whl",
            "a @ /etc/passwd",
            "./a",
            "a>=1",
            "# \\",
            "a==1 # \\",
            "\\",
        ] {
            assert!(check(&format!("b==1\n{bad}\n")).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_there_is_what_was_below_but_for_what_took_its_place() {
        let below = "a==1\nb==2\nc==3\n";
        let lock = "b==2 \\\n    --hash=sha256:1\nc==4 \\\n    --hash=sha256:2\nd==5 \\\n    --hash=sha256:3\n";
        let there = over(below, lock);
        assert_eq!(
            pins(&there).into_iter().collect::<Vec<_>>(),
            ["a==1", "b==2", "c==4", "d==5"]
        );
        assert_eq!(over(below, ""), below);
    }
}
