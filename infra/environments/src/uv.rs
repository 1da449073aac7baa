//! `uv`: where it is, what environment variables it gets, and what its texts mean.

use broker::{Fault, Network, Roots};
use contract::Failure;
use sandbox::python::Python;
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

/// Environment variables that whoever installs packages here may need: proxies, certificates, indexes.
const KEPT: [&str; 31] = [
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "all_proxy",
    "no_proxy",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "PIP_CERT",
    "PIP_INDEX_URL",
    "PIP_EXTRA_INDEX_URL",
    "PIP_FIND_LINKS",
    "PIP_TRUSTED_HOST",
    "UV_INDEX_URL",
    "UV_EXTRA_INDEX_URL",
    "UV_DEFAULT_INDEX",
    "UV_INDEX",
    "UV_FIND_LINKS",
    "UV_CACHE_DIR",
    "UV_INSECURE_HOST",
    "UV_NATIVE_TLS",
    "UV_SYSTEM_CERTS",
    "UV_OFFLINE",
    "UV_HTTP_TIMEOUT",
    "UV_HTTP_RETRIES",
    "UV_INDEX_STRATEGY",
    "UV_CONCURRENT_DOWNLOADS",
];

/// The part of this process's environment variables that an installer may see.
pub fn kept_variables() -> BTreeMap<String, String> {
    KEPT.iter()
        .filter_map(|name| Some(((*name).to_owned(), std::env::var(name).ok()?)))
        .collect()
}

/// The block for a `uv` that builds: what its user said of the network, without a credential, and nothing of their indexes; see
/// [`crate::sources::Sources::tell_uv`].
pub(crate) fn variables(home: &Path) -> BTreeMap<String, String> {
    const OF_THE_NETWORK: [&str; 10] = [
        "SSL_CERT_FILE",
        "SSL_CERT_DIR",
        "REQUESTS_CA_BUNDLE",
        "CURL_CA_BUNDLE",
        "UV_NATIVE_TLS",
        "UV_SYSTEM_CERTS",
        "UV_HTTP_RETRIES",
        "UV_INDEX_STRATEGY",
        "UV_CONCURRENT_DOWNLOADS",
        "PIP_CERT",
    ];
    let kept = kept_variables();
    let mut block: BTreeMap<String, String> = kept
        .iter()
        .filter(|(name, value)| {
            OF_THE_NETWORK.contains(&name.as_str())
                || name.to_ascii_uppercase().ends_with("_PROXY") && !value.contains('@')
        })
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    // The broker is on this machine.
    bypass_proxy(&mut block, &["127.0.0.1"]);
    // The broker tries again itself before it answers.
    let network = network();
    let patience = network.timeout * (network.retries + 1) + Duration::from_secs(30);
    block.insert("UV_HTTP_TIMEOUT".into(), patience.as_secs().to_string());
    for (name, value) in [
        ("UV_LINK_MODE", "copy"),
        ("UV_NO_CONFIG", "1"),
        ("UV_NO_PROGRESS", "1"),
        ("UV_PYTHON_DOWNLOADS", "never"),
        ("UV_NO_MANAGED_PYTHON", "1"),
        ("NO_COLOR", "1"),
        ("LANG", "C.UTF-8"),
    ] {
        block.insert(name.into(), value.into());
    }
    block.insert("HOME".into(), home.display().to_string());
    block.insert(
        "PATH".into(),
        "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".into(),
    );
    block
}

/// Adds hosts to those that a block of variables has asked without a proxy.
pub fn bypass_proxy(block: &mut BTreeMap<String, String>, hosts: &[&str]) {
    for name in ["NO_PROXY", "no_proxy"] {
        let known = block.entry(name.to_owned()).or_default();
        for host in hosts {
            if !known.is_empty() {
                known.push(',');
            }
            known.push_str(host);
        }
    }
}

/// How the machine's owner reaches the network, by the variables that uv and pip know.
pub fn network() -> Network {
    let kept = kept_variables();
    let value = |name: &str| kept.get(name).filter(|value| !value.is_empty()).cloned();
    let is_set = |name: &str| {
        value(name).is_some_and(|value| !matches!(value.to_ascii_lowercase().as_str(), "0" | "false" | "no" | "off"))
    };
    let first = |names: &[&str]| names.iter().find_map(|name| value(name));
    let mut texts: Vec<Vec<u8>> = value("SSL_CERT_FILE")
        .and_then(|path| fs::read(path).ok())
        .into_iter()
        .collect();
    if let Some(folder) = value("SSL_CERT_DIR").filter(|_| texts.is_empty()) {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        texts.extend(entries.filter_map(|entry| fs::read(entry.path()).ok()));
    }
    let no_proxy = first(&["NO_PROXY", "no_proxy"]).unwrap_or_default();
    Network {
        roots: match texts.is_empty() {
            false => Roots::Pem(texts),
            true if is_set("UV_SYSTEM_CERTS") || is_set("UV_NATIVE_TLS") => Roots::System,
            true => Roots::Mozilla,
        },
        http_proxy: first(&["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"]),
        https_proxy: first(&["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"]),
        no_proxy: no_proxy
            .split(',')
            .map(str::trim)
            .filter(|host| !host.is_empty())
            .map(str::to_owned)
            .collect(),
        timeout: Duration::from_secs(
            value("UV_HTTP_TIMEOUT")
                .and_then(|text| text.parse().ok())
                .unwrap_or(30),
        ),
        retries: value("UV_HTTP_RETRIES")
            .and_then(|text| text.parse().ok())
            .unwrap_or(3)
            .min(10),
        is_offline: is_set("UV_OFFLINE"),
    }
}

/// Certificates that the owner's variables name, which a sandbox has to show.
pub fn certificates(block: &BTreeMap<String, String>) -> Vec<PathBuf> {
    let named = [
        "SSL_CERT_FILE",
        "SSL_CERT_DIR",
        "REQUESTS_CA_BUNDLE",
        "CURL_CA_BUNDLE",
        "PIP_CERT",
    ];
    let paths = named.iter().filter_map(|name| block.get(*name)).map(PathBuf::from);
    paths
        .filter(|path| path.is_absolute() && path.exists() && !path.starts_with("/etc") && !path.starts_with("/usr"))
        .collect()
}

const FETCH: &str = r#"
import os, subprocess, sys, tempfile, zipfile
target = sys.argv[1]
folder = tempfile.mkdtemp(dir=os.path.dirname(target))
def by_pip(python):
    subprocess.run([python, '-I', '-m', 'pip', 'download', '--quiet', '--disable-pip-version-check', '--no-deps',
        '--only-binary', ':all:', '--dest', os.path.join(folder, 'wheel'), 'uv'], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    return os.path.join(folder, 'wheel', os.listdir(os.path.join(folder, 'wheel'))[0])
def by_a_pip_of_its_own():
    import venv
    venv.create(os.path.join(folder, 'venv'), with_pip=True)
    return by_pip(os.path.join(folder, 'venv', 'bin', 'python'))
try:
    try:
        wheel = by_pip(sys.executable)
    except Exception:
        wheel = by_a_pip_of_its_own()
    with zipfile.ZipFile(wheel) as archive:
        name = next(n for n in archive.namelist() if n.endswith('.data/scripts/uv'))
        data = archive.read(name)
    with open(target, 'wb') as file:
        file.write(data)
    os.chmod(target, 0o755)
except subprocess.CalledProcessError as error:
    sys.exit('pip did not get it: ' + (error.stderr or b'').decode(errors='replace').strip()[-300:])
except Exception as error:
    sys.exit(f'{type(error).__name__}: {error}')
finally:
    import shutil
    shutil.rmtree(folder, ignore_errors=True)
"#;

/// Finds `uv` on PATH, else in the state folder, else fetches it into that from the package index.
///
/// # Errors
///
/// `Install.NoUv`. Worth a retry when there is a network.
pub(crate) async fn find(state: &Path, python: &Python, say: &dyn Fn(String)) -> Result<PathBuf, Failure> {
    let on_path = std::env::var_os("PATH")
        .map(|path| {
            std::env::split_paths(&path)
                .map(|folder| folder.join("uv"))
                .find(|uv| uv.is_file())
        })
        .unwrap_or_default();
    if let Some(uv) = on_path {
        return Ok(std::fs::canonicalize(&uv).unwrap_or(uv));
    }
    let uv = state.join("tools/uv");
    if uv.is_file() {
        return Ok(uv);
    }
    say("fetching uv".into());
    let failed = |why: &str| {
        Failure::new(
            "Install.NoUv",
            format!(
                "uv, which installs packages, is not on PATH and could not be fetched ({}). Connect to a network, or install uv or pip \
                 (your system's packages have them), and start again.",
                flow::redact(why)
            ),
        )
    };
    let fetched = state.join("tools").join(format!("uv.{}", std::process::id()));
    std::fs::create_dir_all(state.join("tools")).map_err(|error| failed(&error.to_string()))?;
    let mut command = tokio::process::Command::new(&python.executable);
    command
        .args(["-I", "-c", FETCH])
        .arg(&fetched)
        .env_clear()
        .envs(kept_variables())
        .stdin(Stdio::null())
        .kill_on_drop(true);
    sandbox::descriptors::keep_only(command.as_std_mut(), &[]);
    let output = command.output().await.map_err(|error| failed(&error.to_string()))?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        return Err(failed(text.trim().lines().last().unwrap_or("it said nothing")));
    }
    std::fs::rename(&fetched, &uv).map_err(|error| failed(&error.to_string()))?;
    Ok(uv)
}

/// The stage that a line of uv's output begins, in words; `None` for what is no stage.
pub(crate) fn stage(line: &str) -> Option<String> {
    let line = line.trim();
    let word = line.split(' ').next()?;
    let is_stage = matches!(
        word,
        "Resolved" | "Downloading" | "Building" | "Prepared" | "Installed" | "Uninstalled" | "Bytecode"
    );
    is_stage.then(|| {
        let mut words = line.chars();
        let first = words.next().map(|c| c.to_ascii_lowercase());
        first.into_iter().chain(words).collect()
    })
}

/// Names what uv says when it fails.
///
/// * `output`: all that it said, redacted.
/// * `place`: where in the user's files a line of its input came from.
/// * `log`: where the whole output is.
pub(crate) fn failure(output: &str, place: &dyn Fn(&str) -> Option<String>, log: &str) -> Failure {
    let lower = output.to_ascii_lowercase();
    let has = |text: &str| lower.contains(text);
    let tail = format!("The whole output is in {log}.");
    let quoted = |before: &str| {
        let at = lower.find(before)? + before.len();
        let rest = output[at..].trim_start_matches(['`', ' ']);
        Some(
            rest.split([' ', '`', '\n', ',', ';'])
                .next()?
                .trim_end_matches(['.', ':'])
                .to_owned(),
        )
    };
    let why = reason(output);
    let at = |package: &str| {
        let name = package.split(['=', '<', '>', '!', '~', '@']).next().unwrap_or(package);
        place(name.trim()).map(|place| format!("{place}: ")).unwrap_or_default()
    };
    if has("no space left on device") || has("disk quota exceeded") {
        return Failure::new(
            "Install.DiskFull",
            format!("The disk is full. Make room, and start again. {tail}"),
        );
    }
    if has("lack of valid authentication credentials") || has("401 unauthorized") || has("403 forbidden") {
        return refused(url_in(output), &tail);
    }
    if has("couldn't parse requirement")
        || has("failed to parse") && has("requirement")
        || has("unsupported requirement")
    {
        return Failure::new(
            "Install.BadRequirement",
            format!("A line of the requirements is none: {why}. Correct it, and start again. {tail}"),
        );
    }
    if has("hash mismatch") {
        let package = quoted("hash mismatch for").unwrap_or_default();
        return mismatch(&at(&package), &package, &tail);
    }
    if has("invalid peer certificate") {
        return not_trusted(url_in(output), &tail);
    }
    if has("network was disabled")
        || has("error sending request")
        || has("failed to fetch")
        || has("tcp connect error")
        || has("dns error")
    {
        return unreachable(&why, &tail);
    }
    if has("was not found in the package registry") || has("not found in the provided package locations") {
        let package = before_text(output, " was not found in the package registry")
            .or_else(|| before_text(output, " was not found in the provided"))
            .unwrap_or_default();
        return Failure::new(
            "Install.NoSuchPackage",
            format!(
                "{}there is no package {package}. Correct its name in the requirements, or name the index that has it. {tail}",
                at(&package)
            ),
        );
    }
    let asks_for = quoted("there is no version of").or_else(|| quoted("only the following versions of"));
    if let Some(wanted) = asks_for.filter(|_| !has("depends on")) {
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
        return Failure::new("Install.NoSuchVersion", format!("{}{text} {tail}", at(&package)));
    }
    if has("build backend returned an error") || has("failed to build") {
        let package = quoted("failed to build").unwrap_or_else(|| "a package".into());
        let said = output
            .lines()
            .map(str::trim)
            .rev()
            .find(|line| line.contains("Error:") || line.contains("error:"))
            .unwrap_or("see its output");
        return Failure::new(
            "Install.BuildFailed",
            format!(
                "{}{package} could not be built from source: {said}. Take a version that has a wheel, or install what its build needs. {tail}",
                at(&package)
            ),
        );
    }
    if has("no solution found") {
        let name = if has("no wheels with a matching") || has("have no source distribution") {
            "Install.NoSuchVersion"
        } else {
            "Install.Conflict"
        };
        return Failure::new(
            name,
            format!("The requirements cannot be met together: {why}. Change one of them, and start again. {tail}"),
        );
    }
    Failure::new(
        "Install.Failed",
        format!("uv could not install the packages: {why}. {tail}"),
    )
}

/// Names what the broker says of an index.
///
/// * `place`, `log`: as for [`failure`].
pub(crate) fn fault_failure(fault: &Fault, place: &dyn Fn(&str) -> Option<String>, log: &str) -> Failure {
    let tail = format!("The whole output is in {log}.");
    match fault {
        Fault::Unreachable { url, why } => unreachable(&format!("{url}: {why}"), &tail),
        Fault::NotTrusted { url } => not_trusted(url, &tail),
        Fault::Refused { url } => refused(url, &tail),
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
        "Install.IndexUnreachable",
        format!(
            "The package index cannot be reached: {why}. See that there is a network and that the index's URL is right, and start again. {tail}"
        ),
    )
}

fn not_trusted(url: &str, tail: &str) -> Failure {
    Failure::new(
        "Install.IndexNotTrusted",
        format!(
            "The package index is not trusted: the certificate of {url} is by an authority that uv does not know. If it is one of your own, name its \
             certificate file in SSL_CERT_FILE, or set UV_SYSTEM_CERTS=1 to trust what this machine does; then `pfsession down` and start again. {tail}"
        ),
    )
}

fn refused(url: &str, tail: &str) -> Failure {
    Failure::new(
        "Install.IndexRefused",
        format!(
            "The package index {url} refuses the credentials it was given. Correct them in the index's URL, and start again. {tail}"
        ),
    )
}

fn mismatch(at: &str, package: &str, tail: &str) -> Failure {
    Failure::new(
        "Install.HashMismatch",
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
        expect_test::expect!["Install.IndexNotTrusted: The package index is not trusted: the certificate of https://index.example/simple/tabulate/ is by an authority that uv does not know. If it is one of your own, name its certificate file in SSL_CERT_FILE, or set UV_SYSTEM_CERTS=1 to trust what this machine does; then `pfsession down` and start again. The whole output is in LOG."].assert_eq(&failure(said, &|_| None, "LOG").to_string());
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
    fn what_has_no_name_is_said_with_uvs_own_reason() {
        let said = "error: something new\n  cause: nobody has seen it before\n";
        assert_eq!(
            failure(said, &|_| None, "LOG").to_string(),
            "Install.Failed: uv could not install the packages: nobody has seen it before. The whole output is in LOG."
        );
    }
}
