//! The environment variables of a session.

use environments::uv;
use network::GATEWAY;
use std::{collections::BTreeMap, path::Path};

/// The whole block of a session's environment variables.
///
/// * `home`: where its home folder is seen; the same for every session, as modules loaded in the
///   warm process have looked there.
/// * `packages`: where its environment is seen.
pub(crate) fn variables(home: &Path, packages: &Path) -> BTreeMap<String, String> {
    let network = uv::kept_variables().into_iter().filter(|(name, _)| {
        let name = name.to_ascii_uppercase();
        name.ends_with("_PROXY") || name.starts_with("SSL_") || name.ends_with("CA_BUNDLE")
    });
    let mut block: BTreeMap<String, String> = network.collect();
    let bin = packages.join("bin");
    for (name, value) in [
        ("HOME", home.display().to_string()),
        ("PATH", format!("{}:/usr/local/bin:/usr/bin:/bin", bin.display())),
        ("VIRTUAL_ENV", packages.display().to_string()),
        ("LANG", "C.UTF-8".into()),
        ("TMPDIR", "/tmp".into()),
        ("PYTHONDONTWRITEBYTECODE", "1".into()),
    ] {
        block.insert(name.into(), value);
    }
    if block.keys().any(|name| name.to_ascii_uppercase().ends_with("_PROXY")) {
        // What is near is asked without the proxy, as the broker of model providers is.
        uv::bypass_proxy(&mut block, &[&GATEWAY.to_string(), "127.0.0.1"]);
    }
    block
}
