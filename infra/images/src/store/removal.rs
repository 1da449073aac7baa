//! Images that nobody uses go, with the layers that no other image has.

use super::{KEEP_PARTIAL, Listed, Removed, Store, millis};
use crate::{Name, digest::file_name, failure, io as wrong};
use contract::{Code, Failure};
use sandbox::removal::remove;
use std::{
    collections::BTreeSet,
    fs::{self, File},
    io,
    time::{Duration, SystemTime},
};

impl Store {
    /// Removes the images that a text names: by a name, by a digest, or by how that begins.
    ///
    /// # Errors
    ///
    /// `Image.NotHere`; `Image.InUse`, until its sessions have ended.
    pub fn remove(&self, text: &str) -> Result<Removed, Failure> {
        let named = text.parse::<Name>().ok();
        let name = named.as_ref().map(Name::to_string);
        let pinned = named.as_ref().and_then(Name::digest);
        // `sha256:` alone begins all of them.
        let beginning = text.strip_prefix("sha256:").unwrap_or(text);
        let is_hex = beginning.len() >= 6 && beginning.bytes().all(|byte| byte.is_ascii_hexdigit());
        let begins = |digest: &str| is_hex && digest.trim_start_matches("sha256:").starts_with(beginning);
        let found: Vec<Listed> = self
            .list()
            .into_iter()
            .filter(|each| {
                let is_named = each.names.iter().any(|known| Some(known) == name.as_ref());
                is_named || pinned == Some(&each.digest) || begins(&each.digest)
            })
            .collect();
        if found.is_empty() {
            let message = format!("No image {text} is here. See which there are: pfsession image list");
            return Err(failure(Code::ImageNotHere, message));
        }
        for each in &found {
            if !self.forget(&each.digest).map_err(|error| wrong(&self.root, error))? {
                let message = format!("Sessions use the image {text}. Stop them, then remove it: pfsession list");
                return Err(failure(Code::ImageInUse, message));
            }
        }
        self.collect();
        Ok(Removed {
            digests: found.into_iter().map(|each| each.digest).collect(),
        })
    }

    /// Removes images that nobody has used for so long, and all that no image needs.
    pub fn prune(&self, unused: Duration) {
        let until = millis(SystemTime::now()).saturating_sub(unused.as_millis() as u64);
        for each in self
            .list()
            .into_iter()
            .filter(|each| each.used < until && !each.is_in_use)
        {
            match self.forget(&each.digest) {
                Ok(true) => tracing::info!(image = each.digest, "an image that nobody has used for long is gone"),
                Ok(false) => {}
                Err(error) => tracing::warn!(image = each.digest, %error, "an image could not be removed"),
            }
        }
        self.collect();
    }

    /// Takes away an image's record, if nobody holds it. Whether it did. Who wants to hold it
    /// meanwhile waits, and finds it gone.
    pub(super) fn forget(&self, digest: &str) -> io::Result<bool> {
        let mark = self.open_mark(digest)?;
        if mark.try_lock().is_err() {
            return Ok(false);
        }
        fs::remove_file(self.root.join("records").join(format!("{}.json", file_name(digest))))?;
        for tag in self.tags().into_iter().filter(|tag| tag.digest == digest) {
            let _ = fs::remove_file(self.tag_file(&tag.name));
        }
        let _ = fs::remove_file(self.mark(digest));
        Ok(true)
    }

    /// Removes what no record needs. Not while somebody pulls: what that has so far is in no record
    /// yet.
    pub(super) fn collect(&self) {
        let Ok(lock) = File::create(self.root.join("locks/collect")) else {
            return;
        };
        if lock.try_lock().is_err() {
            return;
        }
        let records = self.records();
        let trees: BTreeSet<String> = records.iter().map(|record| record.tree.clone()).collect();
        let layers: BTreeSet<String> = records
            .iter()
            .flat_map(|record| &record.layers)
            .map(|id| file_name(id))
            .collect();
        for (folder, needed) in [("trees", &trees), ("layers", &layers)] {
            for entry in fs::read_dir(self.root.join(folder)).into_iter().flatten().flatten() {
                let is_needed = entry.file_name().to_str().is_some_and(|name| needed.contains(name));
                if !is_needed && let Err(error) = remove(&entry.path()) {
                    tracing::warn!(%error, "what no image needs could not be removed");
                }
            }
        }
        for entry in fs::read_dir(self.root.join("blobs")).into_iter().flatten().flatten() {
            let age = entry
                .metadata()
                .and_then(|about| about.modified())
                .ok()
                .and_then(|time| time.elapsed().ok());
            if age.is_some_and(|age| age > KEEP_PARTIAL) {
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}
