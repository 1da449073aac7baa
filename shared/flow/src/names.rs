//! Names of packages.

/// Modules, and the package on PyPI that has each.
const OTHERWISE: [(&str, &str); 30] = [
    ("Crypto", "pycryptodome"),
    ("OpenSSL", "pyopenssl"),
    ("PIL", "pillow"),
    ("attr", "attrs"),
    ("bs4", "beautifulsoup4"),
    ("cv2", "opencv-python-headless"),
    ("dateutil", "python-dateutil"),
    ("docx", "python-docx"),
    ("dotenv", "python-dotenv"),
    ("faiss", "faiss-cpu"),
    ("fitz", "pymupdf"),
    ("git", "gitpython"),
    ("github", "pygithub"),
    ("google.protobuf", "protobuf"),
    ("googleapiclient", "google-api-python-client"),
    ("grpc", "grpcio"),
    ("jose", "python-jose"),
    ("jwt", "pyjwt"),
    ("kafka", "kafka-python"),
    ("magic", "python-magic"),
    ("multipart", "python-multipart"),
    ("pptx", "python-pptx"),
    ("psycopg2", "psycopg2-binary"),
    ("serial", "pyserial"),
    ("skimage", "scikit-image"),
    ("sklearn", "scikit-learn"),
    ("slugify", "python-slugify"),
    ("socks", "pysocks"),
    ("yaml", "pyyaml"),
    ("zmq", "pyzmq"),
];

/// The package that has a module, as far as that is known: else the module's first part, as most
/// packages are named so.
///
/// * `module`: with its dots.
pub fn package_of(module: &str) -> &str {
    let is_in = |name: &str| {
        module
            .strip_prefix(name)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    let other = OTHERWISE.iter().find(|(name, _)| is_in(name));
    other.map_or_else(|| module.split('.').next().unwrap_or(module), |(_, package)| package)
}

/// The real name of a package that PyPI has only to refuse it. `bs4` is none: it installs
/// beautifulsoup4.
pub(crate) fn current_name(package: &str) -> Option<&'static str> {
    match package {
        "sklearn" => Some("scikit-learn"),
        _ => None,
    }
}

/// The name of a package as an index has it.
///
/// # Source
///
/// <https://packaging.python.org/en/latest/specifications/name-normalization/>.
pub fn normalize_name(name: &str) -> String {
    let mut out = String::new();
    for c in name.chars() {
        match c {
            '-' | '_' | '.' if out.ends_with('-') => {}
            '-' | '_' | '.' => out.push('-'),
            c => out.extend(c.to_lowercase()),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_package_that_cannot_be_installed_is_renamed() {
        assert_eq!(current_name("sklearn"), Some("scikit-learn"));
        assert_eq!(current_name("bs4"), None);
    }

    #[test]
    fn a_module_is_in_the_package_of_its_name_or_of_another() {
        for (module, package) in [
            ("cowsay", "cowsay"),
            ("cowsay.main", "cowsay"),
            ("sklearn.linear_model", "scikit-learn"),
            ("yaml", "pyyaml"),
            ("yamlish", "yamlish"),
            ("google.protobuf.message", "protobuf"),
            ("google.cloud", "google"),
        ] {
            assert_eq!(package_of(module), package, "{module}");
        }
    }

    #[test]
    fn a_package_has_one_name_however_it_is_written() {
        for name in ["Foo.Bar-baz", "foo__bar..BAZ", "foo-bar-baz"] {
            assert_eq!(normalize_name(name), "foo-bar-baz");
        }
    }
}
