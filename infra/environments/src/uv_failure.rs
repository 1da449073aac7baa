//! Failures by uv's texts and by the broker's reports of an index, with what to do.

use broker::Fault;
use contract::{Code, Failure};

/// Names what uv says when it fails.
///
/// * `output`: all that it said, redacted.
/// * `place`: where in the user's files a line of its input came from.
/// * `log`: where the whole output is.
pub(crate) fn failure(output: &str, place: &dyn Fn(&str) -> Option<String>, log: &str) -> Failure {
    let said = Said {
        output,
        lower: output.to_ascii_lowercase(),
        place,
        tail: format!("The whole output is in {log}."),
    };
    let named = said.of_the_index().or_else(|| said.of_a_package());
    named.or_else(|| said.of_a_build()).unwrap_or_else(|| {
        let (why, tail) = (reason(output), &said.tail);
        Failure::new(
            Code::InstallFailed,
            format!("uv could not install the packages: {why}. {tail}"),
        )
    })
}

/// The output of uv.
struct Said<'a> {
    output: &'a str,
    lower: String,
    place: &'a dyn Fn(&str) -> Option<String>,
    /// The place of the whole output, as the end of a message.
    tail: String,
}

impl Said<'_> {
    fn has(&self, text: &str) -> bool {
        self.lower.contains(text)
    }

    /// The word behind a text.
    fn word_after(&self, before: &str) -> Option<String> {
        let at = self.lower.find(before)? + before.len();
        let rest = self.output[at..].trim_start_matches(['`', ' ']);
        let word = rest.split([' ', '`', '\n', ',', ';']).next()?;
        Some(word.trim_end_matches(['.', ':']).to_owned())
    }

    /// The file and line at which the requirements name a package, as the beginning of a message.
    fn at(&self, package: &str) -> String {
        let name = package.split(['=', '<', '>', '!', '~', '@']).next().unwrap_or(package);
        let place = (self.place)(name.trim());
        place.map(|place| format!("{place}: ")).unwrap_or_default()
    }

    /// A failure of the disk, of a line of the requirements, or of an index.
    fn of_the_index(&self) -> Option<Failure> {
        let has = |text: &str| self.has(text);
        let (output, tail) = (self.output, &self.tail);
        if has("no space left on device") || has("disk quota exceeded") {
            return Some(Failure::new(
                Code::InstallDiskFull,
                format!("The disk is full. Make room, and start again. {tail}"),
            ));
        }
        if has("lack of valid authentication credentials") || has("401 unauthorized") || has("403 forbidden") {
            return Some(index_refused(url_in(output), tail));
        }
        if has("git operation failed") || has("failed to clone into") {
            return self.of_a_repository();
        }
        let why = reason(output);
        if has("couldn't parse requirement")
            || has("failed to parse") && has("requirement")
            || has("unsupported requirement")
        {
            return Some(Failure::new(
                Code::InstallBadRequirement,
                format!("A line of the requirements is invalid: {why}. Correct it, and start again. {tail}"),
            ));
        }
        if has("hash mismatch") {
            let package = self.word_after("hash mismatch for").unwrap_or_default();
            return Some(mismatch(&self.at(&package), &package, tail));
        }
        if has("invalid peer certificate") {
            return Some(not_trusted(url_in(output), tail));
        }
        if has("network was disabled")
            || has("error sending request")
            || has("failed to fetch")
            || has("tcp connect error")
            || has("dns error")
        {
            return Some(unreachable(&reason(output), tail));
        }
        None
    }

    /// A failure of a package's repository.
    fn of_a_repository(&self) -> Option<Failure> {
        let has = |texts: &[&str]| texts.iter().any(|text| self.has(text));
        let words = self.output.split(['\'', '`', ' ', '\n']);
        let url = words
            .map(|word| word.trim_start_matches("git+"))
            .find(|word| word.contains("://"))?;
        let (code, text) = if has(&[
            "could not resolve",
            "failed to connect",
            "couldn't connect",
            "timed out",
        ]) {
            let remedy = "See that there is a network and that its URL is right, and start again.";
            (Code::InstallIndexUnreachable, format!("cannot be reached. {remedy}"))
        } else if has(&[
            "could not read username",
            "authentication failed",
            "not found",
            "403",
            "terminal prompts disabled",
        ]) {
            let remedy =
                "Correct its URL; if it is not for everybody, publish the package to an index and name it by its name.";
            (
                Code::InstallIndexRefused,
                format!("is not there, or not for everybody. {remedy}"),
            )
        } else if let Some(revision) = self
            .word_after("failed to fetch branch or tag")
            .or_else(|| self.word_after("failed to fetch commit"))
        {
            (
                Code::InstallNoSuchVersion,
                format!("has no {revision}. Take another one in the requirements."),
            )
        } else {
            return None;
        };
        Some(Failure::new(code, format!("The repository {url} {text} {}", self.tail)))
    }

    /// A failure of a package that no index has, or not in the version that is wanted.
    fn of_a_package(&self) -> Option<Failure> {
        let has = |text: &str| self.has(text);
        let (output, tail) = (self.output, &self.tail);
        if has("was not found in the package registry") || has("not found in the provided package locations") {
            let package = before_text(output, " was not found in the package registry")
                .or_else(|| before_text(output, " was not found in the provided"))
                .unwrap_or_default();
            return Some(Failure::new(
                Code::InstallNoSuchPackage,
                format!(
                    "{}there is no package {package}. Correct its name in the requirements, or name the index that has it. {tail}",
                    self.at(&package)
                ),
            ));
        }
        let asks_for = self
            .word_after("there is no version of")
            .or_else(|| self.word_after("only the following versions of"))
            .or_else(|| self.word_after(" is available and you require"));
        let wanted = asks_for.filter(|_| !has("depends on"))?;
        let package = wanted
            .split(['=', '<', '>', '!', '~'])
            .next()
            .unwrap_or(&wanted)
            .to_owned();
        // The place of an index that has the package, and hides another that may have the version.
        let hides = output.split_once(&format!("`{package}` was found on "));
        let hides = hides.and_then(|(_, rest)| rest.split_once(", but not at the requested version"));
        let text = match hides {
            Some((index, _)) => format!(
                "the index {index} has {package}, and not the version {wanted}. A package that an index before another has comes from it \
                     alone where one of them has a credential. Take another version, or have that index bring this one."
            ),
            None => format!("there is no version {wanted} of it. Take another one in the requirements."),
        };
        Some(Failure::new(
            Code::InstallNoSuchVersion,
            format!("{}{text} {tail}", self.at(&package)),
        ))
    }

    /// A failure of a package's build, or of requirements that contradict each other.
    fn of_a_build(&self) -> Option<Failure> {
        let has = |text: &str| self.has(text);
        let (output, tail) = (self.output, &self.tail);
        if has("build backend returned an error") || has("failed to build") {
            let package = self.word_after("failed to build").unwrap_or_else(|| "a package".into());
            let said = output
                .lines()
                .map(str::trim)
                .rev()
                .find(|line| line.contains("Error:") || line.contains("error:"))
                .unwrap_or("see its output");
            return Some(Failure::new(
                Code::InstallBuildFailed,
                format!(
                    "{}{package} could not be built from source: {said}. Take a version that has a wheel, or install what its build needs. {tail}",
                    self.at(&package)
                ),
            ));
        }
        let why = reason(output);
        let other_platform = before_text(output, " has no wheels with a matching platform tag");
        if let Some(package) = other_platform.filter(|package| package.contains("==") && !has("depends on")) {
            let text = format!(
                "{}{package} has no wheel for this platform. Take another version; if it is for Windows alone, write \
                 `{package}; sys_platform == 'win32'`. {tail}",
                self.at(&package)
            );
            return Some(Failure::new(Code::InstallNoSuchVersion, text));
        }
        if has("no solution found") {
            let name = if has("no wheels with a matching") || has("have no source distribution") {
                Code::InstallNoSuchVersion
            } else {
                Code::InstallConflict
            };
            return Some(Failure::new(
                name,
                format!("The requirements cannot be met together: {why}. Change one of them, and start again. {tail}"),
            ));
        }
        None
    }
}

/// Names what the broker says of an index.
///
/// * `place`, `log`: as for [`failure`].
pub(crate) fn fault_failure(fault: &Fault, place: &dyn Fn(&str) -> Option<String>, log: &str) -> Failure {
    let tail = format!("The whole output is in {log}.");
    match fault {
        Fault::Unreachable { url, why } => unreachable(&format!("{url}: {why}"), &tail),
        Fault::NotTrusted { url } => not_trusted(url, &tail),
        Fault::Refused { url } => index_refused(url, &tail),
        Fault::HashMismatch { file } => {
            let mut parts = file.split('-');
            let (name, version) = match file.contains(".whl") {
                true => (parts.next().unwrap_or_default(), parts.next().unwrap_or_default()),
                false => file.rsplit_once('-').unwrap_or((file, "")),
            };
            let version = [".tar.gz", ".zip"]
                .iter()
                .find_map(|end| version.strip_suffix(end))
                .unwrap_or(version);
            let at = place(name).map(|place| format!("{place}: ")).unwrap_or_default();
            mismatch(&at, &format!("{name}=={version}"), &tail)
        }
    }
}

fn unreachable(why: &str, tail: &str) -> Failure {
    Failure::new(
        Code::InstallIndexUnreachable,
        format!(
            "The package index cannot be reached: {why}. See that there is a network and that the index's URL is right, and start again. {tail}"
        ),
    )
}

fn not_trusted(url: &str, tail: &str) -> Failure {
    Failure::new(
        Code::InstallIndexNotTrusted,
        format!(
            "The package index is not trusted: the certificate of {url} is by an authority that uv does not know. If it is one of your own, name its \
             certificate file in SSL_CERT_FILE, or set UV_SYSTEM_CERTS=1 to trust what this machine does. Restart the service, and start again. {tail}"
        ),
    )
}

fn index_refused(url: &str, tail: &str) -> Failure {
    let host = url::Url::parse(url).ok();
    let host = host
        .as_ref()
        .map_or("HOST", |url| &url[url::Position::BeforeHost..url::Position::AfterPort]);
    Failure::new(
        Code::InstallIndexRefused,
        format!(
            "The package index {url} refuses the credentials it was given. Correct them in the index's URL, or, if that has {{private}}, by \
             pfsession private {host}. Start again. {tail}"
        ),
    )
}

fn mismatch(at: &str, package: &str, tail: &str) -> Failure {
    Failure::new(
        Code::InstallHashMismatch,
        format!(
            "{at}{package} is not the file that its hash promises. Do not trust it; see where the index has it from. {tail}"
        ),
    )
}

/// The first URL that it names.
fn url_in(output: &str) -> &str {
    output
        .split(['(', ' ', '`', '\n'])
        .find(|word| word.contains("://"))
        .map_or("", |url| url.trim_end_matches([')', '.', ',']))
}

/// Uv's reason, on one line.
fn reason(output: &str) -> String {
    let lines: Vec<&str> = output
        .lines()
        .map(|line| line.trim().trim_start_matches(['╰', '├', '─', '▶', '×', ' ']))
        .collect();
    let is_error = |line: &&str| line.starts_with("error:") || line.starts_with("No solution");
    let error = lines.iter().position(is_error).unwrap_or(0);
    let cause: Vec<&str> = lines
        .iter()
        .skip(error + 1)
        .take_while(|line| !line.is_empty())
        .copied()
        .collect();
    let text = match cause.is_empty() {
        true => lines
            .get(error)
            .copied()
            .unwrap_or("it said nothing")
            .trim_start_matches("error: ")
            .to_owned(),
        false => cause.join(" ").trim_start_matches("cause: ").replace(" cause: ", ": "),
    };
    let text = text.replace(", we can conclude that your requirements are unsatisfiable", "");
    match text.char_indices().nth(400) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.trim_end_matches('.').to_owned(),
    }
}

/// The word before a text.
fn before_text(output: &str, text: &str) -> Option<String> {
    let before = &output[..output.find(text)?];
    Some(before.rsplit([' ', '\n']).next()?.trim_matches('`').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_whose_certificate_is_not_known_is_named_with_how_to_trust_it() {
        let said = "resolving 2 requirements\nerror: Failed to fetch: https://index.example/simple/tabulate/\n  cause: error sending request for url \
                    (https://index.example/simple/tabulate/)\n  cause: client error (Connect)\n  cause: invalid peer certificate: UnknownIssuer\n";
        expect_test::expect!["Install.IndexNotTrusted: The package index is not trusted: the certificate of https://index.example/simple/tabulate/ is by an authority that uv does not know. If it is one of your own, name its certificate file in SSL_CERT_FILE, or set UV_SYSTEM_CERTS=1 to trust what this machine does. Restart the service, and start again. The whole output is in LOG."].assert_eq(&failure(said, &|_| None, "LOG").to_string());
    }

    #[test]
    fn an_index_that_hides_a_version_of_another_is_named() {
        let said = "error: No solution found when resolving dependencies\n  cause: Because there is no version of filelock==3.12.4 and you require \
                    filelock==3.12.4, we can conclude that your requirements are unsatisfiable.\n\nhint: `filelock` was found on \
                    https://index.example/simple, but not at the requested version (filelock==3.12.4). A compatible version may be available \
                    on a subsequent index (e.g., https://other.example/simple).\n";
        expect_test::expect!["Install.NoSuchVersion: the index https://index.example/simple has filelock, and not the version filelock==3.12.4. A package that an index before another has comes from it alone where one of them has a credential. Take another version, or have that index bring this one. The whole output is in LOG."].assert_eq(&failure(said, &|_| None, "LOG").to_string());
    }

    #[test]
    fn a_package_that_has_one_other_version_is_named_with_its_line() {
        let said = "error: No solution found when resolving dependencies\n  cause: Because only inner==1.0 is available and you require inner>1, \
                    we can conclude that your requirements are unsatisfiable.\n";
        let place = |name: &str| (name == "inner").then(|| "requirements.txt:3".to_owned());
        expect_test::expect!["Install.NoSuchVersion: requirements.txt:3: there is no version inner>1 of it. Take another one in the requirements. The whole output is in LOG."].assert_eq(&failure(said, &place, "LOG").to_string());
    }

    #[test]
    fn a_repository_that_cannot_be_had_is_named_with_the_reason() {
        let said = |why: &str| {
            format!(
                "error: Failed to download `tool @ git+https://host.example/tool.git`\n  cause: Git operation failed\n  cause: failed to clone into: /s/git-v2/db/56cfe38e6e673b53\n  cause: {why}process didn't exit \
                 successfully: `/usr/bin/git fetch --force 'https://host.example/tool.git' '+HEAD:refs/remotes/origin/HEAD'` (exit status: 128)\n"
            )
        };
        let text = |why: &str, end: &str| failure(&(said(why) + end), &|_| None, "LOG").to_string();
        expect_test::expect!["Install.IndexUnreachable: The repository https://host.example/tool.git cannot be reached. See that there is a network and that its URL is right, and start again. The whole output is in LOG."].assert_eq(&text("failed to fetch branch or tag `v1`: ", "fatal: unable to access 'https://host.example/tool.git/': Could not resolve host: host.example\n"));
        expect_test::expect!["Install.IndexRefused: The repository https://host.example/tool.git is not there, or not for everybody. Correct its URL; if it is not for everybody, publish the package to an index and name it by its name. The whole output is in LOG."].assert_eq(&text("", "fatal: could not read Username for 'https://host.example': terminal prompts disabled\n"));
        expect_test::expect!["Install.NoSuchVersion: The repository https://host.example/tool.git has no v1. Take another one in the requirements. The whole output is in LOG."].assert_eq(&text("failed to fetch branch or tag `v1`: ", "fatal: couldn't find remote ref refs/tags/v1\n"));
    }

    #[test]
    fn a_package_for_another_platform_is_named_with_its_line_and_the_marker() {
        let said = "error: No solution found when resolving dependencies\n  cause: Because pywin32==306 has no wheels with a matching platform tag \
                    (e.g., `manylinux_2_36_x86_64`) and you require pywin32==306, we can conclude that your requirements are unsatisfiable.\n";
        let place = |name: &str| (name == "pywin32").then(|| "requirements.txt:3".to_owned());
        expect_test::expect!["Install.NoSuchVersion: requirements.txt:3: pywin32==306 has no wheel for this platform. Take another version; if it is for Windows alone, write `pywin32==306; sys_platform == 'win32'`. The whole output is in LOG."].assert_eq(&failure(said, &place, "LOG").to_string());
    }

    #[test]
    fn what_has_no_name_is_said_with_uvs_own_reason() {
        let said = "error: something new\n  cause: nobody has seen it before\n";
        assert_eq!(
            failure(said, &|_| None, "LOG").to_string(),
            "Install.Failed: uv could not install the packages: nobody has seen it before. The whole output is in LOG."
        );
    }
}
