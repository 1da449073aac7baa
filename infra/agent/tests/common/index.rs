//! A small package index on loopback, with wheels that it makes itself.

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use sha2::{Digest, Sha256};
use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Cursor, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
};

#[derive(Default)]
struct Shelf {
    /// By file name.
    wheels: BTreeMap<String, Vec<u8>>,
    /// The credential that a request needs.
    authorization: Option<String>,
}

/// An index that serves until the test process ends.
#[derive(Clone)]
pub(crate) struct Index {
    host: String,
    shelf: Arc<Mutex<Shelf>>,
}

impl Index {
    pub(crate) fn serve() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let index = Self {
            host: listener.local_addr().unwrap().to_string(),
            shelf: Arc::default(),
        };
        let served = index.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let index = served.clone();
                std::thread::spawn(move || index.talk(stream));
            }
        });
        index
    }

    pub(crate) fn host(&self) -> String {
        self.host.clone()
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/simple", self.host)
    }

    /// The line that names it as the index.
    pub(crate) fn line(&self) -> String {
        format!("-i {}", self.url())
    }

    /// A page of links to all files of a package.
    pub(crate) fn links(&self, package: &str) -> String {
        format!("http://{}/simple/{package}/", self.host)
    }

    pub(crate) fn wheel(&self, package: &str, version: &str) -> String {
        format!("http://{}/files/{}", self.host, file(package, version))
    }

    pub(crate) fn hash(&self, package: &str, version: &str) -> String {
        digest(&self.shelf.lock().unwrap().wheels[&file(package, version)])
    }

    /// From now on it answers nobody without this user and password, as `user:password`.
    pub(crate) fn lock(&self, credential: &str) {
        self.shelf.lock().unwrap().authorization = Some(format!("Basic {}", BASE64.encode(credential)));
    }

    /// Adds a package of one module.
    pub(crate) fn add(&self, package: &str, version: &str, requires: &[&str]) {
        let module = package.replace('-', "_");
        let text = format!("version = {version:?}\n");
        self.add_file(package, version, requires, &format!("{module}/__init__.py"), &text);
    }

    /// Adds a package of one file, wherever it says.
    pub(crate) fn add_file(&self, package: &str, version: &str, requires: &[&str], path: &str, text: &str) {
        self.add_files(package, version, requires, &[(path, text)]);
    }

    /// Adds a package of these files.
    pub(crate) fn add_files(&self, package: &str, version: &str, requires: &[&str], files: &[(&str, &str)]) {
        let module = package.replace('-', "_");
        let about = format!("{module}-{version}.dist-info");
        let requires: String = requires.iter().map(|each| format!("Requires-Dist: {each}\n")).collect();
        let own = [
            (
                format!("{about}/METADATA"),
                format!("Metadata-Version: 2.1\nName: {package}\nVersion: {version}\nProvides-Extra: more\n{requires}"),
            ),
            (
                format!("{about}/WHEEL"),
                "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n".into(),
            ),
        ];
        let given = files
            .iter()
            .map(|(path, text)| ((*path).to_owned(), (*text).to_owned()));
        let files: Vec<(String, String)> = given.chain(own).collect();
        let mut record: String = files.iter().map(|(name, _)| format!("{name},,\n")).collect();
        record.push_str(&format!("{about}/RECORD,,\n"));
        let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
        let stored = zip::write::SimpleFileOptions::default()
            .compression_method(zip::CompressionMethod::Stored)
            .last_modified_time(zip::DateTime::default());
        for (name, text) in files.into_iter().chain([(format!("{about}/RECORD"), record)]) {
            zip.start_file(name, stored).unwrap();
            zip.write_all(text.as_bytes()).unwrap();
        }
        let bytes = zip.finish().unwrap().into_inner();
        self.shelf.lock().unwrap().wheels.insert(file(package, version), bytes);
    }

    /// Adds a package that only its own build script makes.
    ///
    /// * `requires`: what its build needs.
    /// * `attack`: Python that defines `attack()`, which gives back the text of its module.
    pub(crate) fn add_source(&self, package: &str, version: &str, requires: &[&str], attack: &str) {
        let backend = BACKEND.replace("NAME", package).replace("VERSION", version) + attack;
        let project =
            format!("[build-system]\nrequires = {requires:?}\nbuild-backend = \"backend\"\nbackend-path = [\".\"]\n");
        let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
        let stored = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
        for (name, text) in [("pyproject.toml", project), ("backend.py", backend)] {
            zip.start_file(format!("{package}-{version}/{name}"), stored).unwrap();
            zip.write_all(text.as_bytes()).unwrap();
        }
        let bytes = zip.finish().unwrap().into_inner();
        let name = format!("{}-{version}.zip", package.replace('-', "_"));
        self.shelf.lock().unwrap().wheels.insert(name, bytes);
    }

    fn talk(&self, stream: TcpStream) -> Option<()> {
        let mut writer = stream.try_clone().ok()?;
        let mut reader = BufReader::new(stream);
        loop {
            let (mut line, mut authorization) = (String::new(), None);
            if reader.read_line(&mut line).ok()? == 0 {
                return None;
            }
            let mut words = line.split(' ');
            let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
            loop {
                line.clear();
                reader.read_line(&mut line).ok()?;
                match line.trim_end().split_once(": ") {
                    Some((name, value)) if name.eq_ignore_ascii_case("authorization") => {
                        authorization = Some(value.to_owned());
                    }
                    None => break,
                    _ => {}
                }
            }
            let (status, kind, body) = self.answer(&path, authorization.as_ref());
            let head = format!(
                "HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {}\r\nwww-authenticate: Basic realm=\"test\"\r\n\r\n",
                body.len()
            );
            writer.write_all(head.as_bytes()).ok()?;
            if method != "HEAD" {
                writer.write_all(&body).ok()?;
            }
        }
    }

    fn answer(&self, path: &str, authorization: Option<&String>) -> (&'static str, &'static str, Vec<u8>) {
        let shelf = self.shelf.lock().unwrap();
        if shelf.authorization.is_some() && shelf.authorization.as_ref() != authorization {
            return ("401 Unauthorized", "text/plain", Vec::new());
        }
        if let Some(wheel) = path.strip_prefix("/files/").and_then(|name| shelf.wheels.get(name)) {
            return ("200 OK", "application/octet-stream", wheel.clone());
        }
        let package = path.strip_prefix("/simple/").unwrap_or_default().trim_end_matches('/');
        let begins = format!("{}-", package.replace('-', "_"));
        let links: String = shelf
            .wheels
            .iter()
            .filter(|(name, _)| name.starts_with(&begins))
            .map(|(name, bytes)| format!("<a href=\"/files/{name}#sha256={}\">{name}</a>\n", digest(bytes)))
            .collect();
        match links.is_empty() {
            true => ("404 Not Found", "text/plain", Vec::new()),
            false => (
                "200 OK",
                "text/html",
                format!("<html><body>{links}</body></html>").into_bytes(),
            ),
        }
    }
}

/// A build script: it makes a wheel of one module whose text `attack()` gives back.
const BACKEND: &str = r#"
import os, zipfile
def build_wheel(directory, config_settings=None, metadata_directory=None):
    about = 'NAME-VERSION.dist-info'
    files = {'NAME.py': attack(), about + '/METADATA': 'Metadata-Version: 2.1\nName: NAME\nVersion: VERSION\n',
             about + '/WHEEL': 'Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n'}
    with zipfile.ZipFile(os.path.join(directory, 'NAME-VERSION-py3-none-any.whl'), 'w') as archive:
        for path, text in files.items():
            archive.writestr(path, text)
        archive.writestr(about + '/RECORD', ''.join(path + ',,\n' for path in [*files, about + '/RECORD']))
    return 'NAME-VERSION-py3-none-any.whl'
"#;

fn file(package: &str, version: &str) -> String {
    format!("{}-{version}-py3-none-any.whl", package.replace('-', "_"))
}

fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
