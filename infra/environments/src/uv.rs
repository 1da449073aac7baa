//! `uv`: where it is, and which environment variables it gets.

use crate::uv_on_path;
use broker::{Network, Roots};
use contract::{Code, Failure};
use sandbox::python::Python;
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

/// Environment variables that whoever installs packages here may need: proxies, certificates,
/// indexes.
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

/// The part of this process's environment variables that installers, and the programs that give
/// images, may see.
pub fn kept_variables() -> BTreeMap<String, String> {
    KEPT.iter()
        .chain(&images::VARIABLES)
        .filter_map(|name| Some(((*name).to_owned(), std::env::var(name).ok()?)))
        .collect()
}

/// The block for a `uv` that builds: what its user said of the network, without a credential, and
/// nothing of their indexes; see [`crate::sources::Sources::tell_uv`].
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

/// The way of the machine's owner to the network, by the variables that uv and pip know.
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

/// Finds `uv` on PATH, if it is one to use, else in the state folder, else fetches it into that
/// from the package index.
///
/// # Errors
///
/// `Install.NoUv`. Worth a retry when there is a network.
pub(crate) async fn find(state: &Path, python: &Python, say: &dyn Fn(String)) -> Result<PathBuf, Failure> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> = std::env::split_paths(&path)
        .filter(|folder| folder.is_absolute())
        .collect();
    if let Some(uv) = uv_on_path::find(&folders, &state.join("tools/uv.json"), say) {
        return Ok(uv);
    }
    let uv = state.join("tools/uv");
    if uv.is_file() {
        return Ok(uv);
    }
    say("fetching uv".into());
    let failed = |why: &str| {
        Failure::new(
            Code::InstallNoUv,
            format!(
                "uv, which installs packages, is not on PATH in a version that is used here, and could not be fetched ({}). Connect to a network, or install uv or pip \
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
