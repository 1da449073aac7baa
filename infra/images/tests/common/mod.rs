//! A small registry on loopback, and images to put into it.

#![allow(dead_code, unreachable_pub, reason = "each test uses its part of it")]

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use flate2::{Compression, write::GzEncoder};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::{
    collections::HashMap,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tar::{Builder, EntryType, Header};

pub fn digest(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// A layer as a tar file, made entry by entry: also such as no tool writes.
pub struct Layer(Builder<Vec<u8>>);

impl Layer {
    pub fn new() -> Self {
        Self(Builder::new(Vec::new()))
    }

    pub fn entry(mut self, kind: EntryType, path: &str, mode: u32, link: &str, content: &[u8]) -> Self {
        let mut header = Header::new_ustar();
        header.set_entry_type(kind);
        // As bytes: the crate refuses what is tried here.
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_mode(mode);
        header.set_uid(1234);
        header.set_gid(1234);
        header.set_mtime(1_600_000_000);
        header.set_size(content.len() as u64);
        header.set_cksum();
        self.0.append(&header, content).unwrap();
        self
    }

    pub fn file(self, path: &str, content: &str) -> Self {
        self.entry(EntryType::Regular, path, 0o644, "", content.as_bytes())
    }

    pub fn program(self, path: &str, content: &str) -> Self {
        self.entry(EntryType::Regular, path, 0o755, "", content.as_bytes())
    }

    pub fn folder(self, path: &str) -> Self {
        self.entry(EntryType::Directory, path, 0o755, "", b"")
    }

    pub fn link(self, path: &str, to: &str) -> Self {
        self.entry(EntryType::Symlink, path, 0o777, to, b"")
    }

    pub fn hard_link(self, path: &str, to: &str) -> Self {
        self.entry(EntryType::Link, path, 0o644, to, b"")
    }

    /// All of a folder of this machine.
    pub fn tree(mut self, folder: &Path) -> Self {
        self.0.follow_symlinks(false);
        self.0.append_dir_all("", folder).unwrap();
        self
    }

    pub fn tar(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// An image: blobs by digest, and its manifest.
#[derive(Clone, Default)]
pub struct Image {
    pub blobs: HashMap<String, Vec<u8>>,
    pub layers: Vec<String>,
    pub manifest: Vec<u8>,
    pub config: Vec<u8>,
    pub tars: Vec<Vec<u8>>,
}

impl Image {
    pub fn digest(&self) -> String {
        digest(&self.manifest)
    }

    /// * `config`: its fields `Env`, `WorkingDir`, `User`.
    /// * `layers`: tar files, and each as it is sent.
    pub fn of(config: Value, layers: Vec<(Vec<u8>, Vec<u8>)>) -> Self {
        let mut image = Self::default();
        let diff_ids: Vec<String> = layers.iter().map(|(tar, _)| digest(tar)).collect();
        let text = json!({ "architecture": architecture(), "os": "linux", "config": config,
            "rootfs": { "type": "layers", "diff_ids": diff_ids } });
        image.config = text.to_string().into_bytes();
        let mut descriptors = Vec::new();
        for (tar, sent) in layers {
            let layer = digest(&sent);
            descriptors.push(
                json!({ "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": layer, "size": sent.len() }),
            );
            image.blobs.insert(layer.clone(), sent);
            image.layers.push(layer);
            image.tars.push(tar);
        }
        let config = digest(&image.config);
        let manifest = json!({ "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": { "mediaType": "application/vnd.oci.image.config.v1+json", "digest": config, "size": image.config.len() },
            "layers": descriptors });
        image.blobs.insert(config, image.config.clone());
        image.manifest = manifest.to_string().into_bytes();
        image
    }

    /// Layers that are compressed by gzip.
    pub fn gzipped(config: Value, layers: Vec<Layer>) -> Self {
        let layers = layers.into_iter().map(Layer::tar);
        Self::of(config, layers.map(|tar| (tar.clone(), gzip(&tar))).collect())
    }
}

#[derive(Default)]
pub struct State {
    blobs: HashMap<String, Vec<u8>>,
    /// By repository and tag or digest.
    manifests: HashMap<String, Vec<u8>>,
    /// `user:secret` that it wants, by a token of its own service.
    pub account: Option<String>,
    /// Blobs that end before their end, so many bytes after where they were asked from; once each.
    pub cut: HashMap<String, usize>,
    /// The repositories that a blob is in; one that is not named here is in all.
    sent: HashMap<String, Vec<String>>,
    /// The number of uploads that end after their first bytes.
    pub cut_uploads: usize,
    /// Whether the account may push.
    pub is_read_only: bool,
    /// Requests, as `GET path`, with the range behind it.
    pub seen: Vec<String>,
    /// The authorization of each request.
    pub authorizations: Vec<String>,
}

pub struct Registry {
    pub address: String,
    state: Arc<Mutex<State>>,
}

impl Registry {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let state = Arc::new(Mutex::new(State::default()));
        let (shared, own) = (Arc::clone(&state), address.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (state, own) = (Arc::clone(&shared), own.clone());
                std::thread::spawn(move || serve(stream, &state, &own));
            }
        });
        Self { address, state }
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn push(&self, repository: &str, tag: &str, image: &Image) -> String {
        self.push_manifest(repository, tag, &image.manifest);
        let mut state = self.state();
        state.blobs.extend(image.blobs.clone());
        for digest in image.blobs.keys() {
            state
                .sent
                .entry(digest.clone())
                .or_default()
                .push(repository.to_owned());
        }
        drop(state);
        format!("{}/{repository}:{tag}", self.address)
    }

    pub fn push_manifest(&self, repository: &str, tag: &str, manifest: &[u8]) {
        let mut state = self.state();
        for name in [tag, &digest(manifest)] {
            state
                .manifests
                .insert(format!("{repository}/manifests/{name}"), manifest.to_vec());
        }
    }

    pub fn put_blob(&self, digest: &str, bytes: Vec<u8>) {
        self.state().blobs.insert(digest.to_owned(), bytes);
    }

    pub fn count(&self, part: &str) -> usize {
        self.state().seen.iter().filter(|line| line.contains(part)).count()
    }
}

const TOKEN: &str = "a-token";

fn serve(stream: TcpStream, state: &Mutex<State>, own: &str) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut out = stream;
    loop {
        let mut first = String::new();
        if reader.read_line(&mut first).unwrap_or(0) == 0 {
            return;
        }
        let is_head = first.starts_with("HEAD ");
        let method = first.split(' ').next().unwrap_or_default().to_owned();
        let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
        let (mut authorization, mut range, mut size) = (String::new(), None, 0);
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).unwrap_or(0) == 0 || line == "\r\n" {
                break;
            }
            let (name, value) = line.trim().split_once(": ").unwrap_or_default();
            match name.to_ascii_lowercase().as_str() {
                "authorization" => authorization = value.to_owned(),
                "content-length" => size = value.parse::<usize>().unwrap(),
                "range" => {
                    range = value
                        .trim_start_matches("bytes=")
                        .trim_end_matches('-')
                        .parse::<usize>()
                        .ok()
                }
                _ => {}
            }
        }
        let mut content = vec![0; size];
        if matches!(&*method, "POST" | "PUT") {
            let is_cut = size > 0 && path.contains("/uploads/") && {
                let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
                state
                    .cut_uploads
                    .checked_sub(1)
                    .map(|left| state.cut_uploads = left)
                    .is_some()
            };
            if is_cut || reader.read_exact(&mut content).is_err() {
                return;
            }
        }
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        let (status, headers, body, cut) = match &*method {
            "POST" | "PUT" => take_in(&mut state, &method, &path, &authorization, content, own),
            _ => answer(&mut state, &path, &authorization, range, own),
        };
        drop(state);
        let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n{headers}\r\n", body.len());
        let head = match is_head && path.contains("/manifests/") && status.starts_with("200") {
            true => head.replacen("\r\n", &format!("\r\nDocker-Content-Digest: {}\r\n", digest(&body)), 1),
            false => head,
        };
        let body = if is_head { Vec::new() } else { body };
        let end = cut.unwrap_or(body.len()).min(body.len());
        if out
            .write_all(head.as_bytes())
            .and_then(|()| out.write_all(&body[..end]))
            .is_err()
            || end < body.len()
        {
            return;
        }
    }
}

type Answer = (&'static str, String, Vec<u8>, Option<usize>);

fn challenge(state: &State, authorization: &str, own: &str) -> Option<Answer> {
    let header = format!("WWW-Authenticate: Bearer realm=\"http://{own}/token\",service=\"{own}\"\r\n");
    let is_refused = state.account.is_some() && authorization != format!("Bearer {TOKEN}");
    is_refused.then(|| ("401 Unauthorized", header, Vec::new(), None))
}

/// Takes in what is pushed, as the specification has it.
fn take_in(state: &mut State, method: &str, path: &str, authorization: &str, content: Vec<u8>, own: &str) -> Answer {
    state.seen.push(format!("{method} {path} "));
    let plain = |status| (status, String::new(), Vec::new(), None);
    if let Some(refused) = challenge(state, authorization, own) {
        return refused;
    }
    if state.is_read_only {
        return plain("403 Forbidden");
    }
    let (path, query) = path
        .trim_start_matches("/v2/")
        .split_once('?')
        .unwrap_or((path.trim_start_matches("/v2/"), ""));
    let value = |name: &str| query.split('&').find_map(|pair| pair.strip_prefix(&format!("{name}=")));
    if let Some((repository, tag)) = path.split_once("/manifests/") {
        if repository.starts_with("closed/") {
            let why = json!({ "errors": [{ "code": "TAG_INVALID", "message": "tags are immutable here." }] });
            return ("400 Bad Request", String::new(), why.to_string().into_bytes(), None);
        }
        for name in [tag, &digest(&content)] {
            state
                .manifests
                .insert(format!("{repository}/manifests/{name}"), content.clone());
        }
        return plain("201 Created");
    }
    let (repository, _) = path.split_once("/blobs/").unwrap();
    if let (Some(mounted), Some(_)) = (value("mount"), value("from"))
        && state.blobs.contains_key(mounted)
    {
        let place = state.sent.entry(mounted.to_owned()).or_default();
        place.push(repository.to_owned());
        return plain("201 Created");
    }
    match value("digest").map(|text| text.replace("%3A", ":")) {
        Some(named) if named == digest(&content) => {
            state.sent.entry(named.clone()).or_default().push(repository.to_owned());
            state.blobs.insert(named, content);
            plain("201 Created")
        }
        Some(_) => plain("400 Bad Request"),
        None => {
            let header = format!("Location: /v2/{repository}/blobs/uploads/one?state=1\r\n");
            ("202 Accepted", header, Vec::new(), None)
        }
    }
}

fn answer(state: &mut State, path: &str, authorization: &str, range: Option<usize>, own: &str) -> Answer {
    state.seen.push(format!(
        "GET {path} {}",
        range.map_or(String::new(), |from| from.to_string())
    ));
    state.authorizations.push(authorization.to_owned());
    let plain = |status, body: Vec<u8>| (status, String::new(), body, None);
    if path.starts_with("/token") {
        let wanted = state
            .account
            .as_ref()
            .map(|account| format!("Basic {}", BASE64.encode(account)));
        return match wanted.is_none_or(|wanted| wanted == authorization) {
            true => plain("200 OK", json!({ "token": TOKEN }).to_string().into_bytes()),
            false => plain("401 Unauthorized", Vec::new()),
        };
    }
    if let Some(refused) = challenge(state, authorization, own) {
        return refused;
    }
    let rest = path.trim_start_matches("/v2/");
    if let Some(manifest) = state.manifests.get(rest) {
        return plain("200 OK", manifest.clone());
    }
    let blob = rest.rsplit_once("/blobs/").and_then(|(repository, digest)| {
        let is_there = |all: &Vec<String>| all.iter().any(|each| each == repository);
        let is_there = state.sent.get(digest).is_none_or(is_there);
        Some((digest, state.blobs.get(digest)?.clone())).filter(|_| is_there)
    });
    let Some((digest, blob)) = blob else {
        return plain("404 Not Found", Vec::new());
    };
    let cut = state.cut.remove(digest);
    match range {
        Some(from) if from < blob.len() => {
            let header = format!("Content-Range: bytes {from}-{}/{}\r\n", blob.len() - 1, blob.len());
            ("206 Partial Content", header, blob[from..].to_vec(), cut)
        }
        _ => ("200 OK", String::new(), blob, cut),
    }
}

/// A tar file of `docker save`.
pub fn docker_archive(images: &[(&str, &Image)]) -> Vec<u8> {
    let mut builder = Layer::new();
    let mut all = Vec::new();
    for (at, (name, image)) in images.iter().enumerate() {
        let mut names = Vec::new();
        for (number, tar) in image.tars.iter().enumerate() {
            let name = format!("{at}-{number}/layer.tar");
            builder = builder.entry(EntryType::Regular, &name, 0o644, "", tar);
            names.push(name);
        }
        let config = format!("{at}.json");
        builder = builder.entry(EntryType::Regular, &config, 0o644, "", &image.config);
        all.push(json!({ "Config": config, "RepoTags": [name], "Layers": names }));
    }
    builder.file("manifest.json", &Value::from(all).to_string()).tar()
}

/// A tar file of an OCI layout.
pub fn oci_archive(image: &Image) -> Vec<u8> {
    let index = json!({ "schemaVersion": 2, "manifests": [{
        "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": image.digest(), "size": image.manifest.len() }] });
    let mut layer = Layer::new().file("index.json", &index.to_string());
    let manifest = (image.digest(), image.manifest.clone());
    for (digest, bytes) in image.blobs.clone().into_iter().chain([manifest]) {
        let path = format!("blobs/{}", digest.replace(':', "/"));
        layer = layer.entry(EntryType::Regular, &path, 0o644, "", &bytes);
    }
    layer.tar()
}
