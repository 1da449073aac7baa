//! Pulls an image from its source, layer by layer.

use super::{AT_ONCE, Image, Record, Store, now};
use crate::{
    Name, Progress, Step,
    digest::{self, digest_of, file_name},
    failure, io as wrong,
    layer::{self, Fault, Layer, Most},
    source::{Source, Wanted},
    tree,
};
use contract::{Code, Failure};
use sandbox::files::write_atomically;
use std::{collections::BTreeSet, fs, io, sync::Mutex};

impl Store {
    pub(super) fn have_layers(
        &self,
        source: &Source,
        wanted: &Wanted,
        name: &Name,
        progress: Progress<'_>,
    ) -> Result<(), Failure> {
        let all: BTreeSet<(&str, usize)> = wanted
            .diff_ids
            .iter()
            .enumerate()
            .map(|(at, id)| (id.as_str(), at))
            .collect();
        let mut seen = BTreeSet::new();
        let missing: Vec<usize> = all
            .into_iter()
            .filter(|(id, _)| seen.insert(*id) && self.layer(id).is_none())
            .map(|(_, at)| at)
            .collect();
        let sizes = missing
            .iter()
            .map(|at| (wanted.layers[*at].digest.as_str(), wanted.layers[*at].size));
        progress(Step::Layers {
            missing: sizes.collect(),
            present: wanted.layers.len() - missing.len(),
        });
        let (next, failed) = (Mutex::new(missing.into_iter()), Mutex::new(None));
        let work = || {
            while let Some(at) = next.lock().ok().and_then(|mut next| next.next()) {
                let done = self.have_layer(source, wanted, at, name, progress);
                if let (Err(failure), Ok(mut failed)) = (done, failed.lock()) {
                    failed.get_or_insert(failure);
                }
                if failed.lock().is_ok_and(|failed| failed.is_some()) {
                    return;
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..AT_ONCE {
                scope.spawn(work);
            }
        });
        match failed.into_inner() {
            Ok(None) => Ok(()),
            Ok(Some(failure)) => Err(failure),
            Err(_) => Err(wrong(&self.root, io::Error::other("a download has panicked"))),
        }
    }

    /// Has one layer unpacked. It is renamed into place when it is whole and on the disk.
    pub(super) fn have_layer(
        &self,
        source: &Source,
        wanted: &Wanted,
        at: usize,
        name: &Name,
        progress: Progress<'_>,
    ) -> Result<(), Failure> {
        let (blob, diff_id) = (&wanted.layers[at], &wanted.diff_ids[at]);
        let _mine = self.lock(&format!("layer-{}", file_name(diff_id)), true, progress)?;
        if self.layer(diff_id).is_some() {
            return Ok(());
        }
        let blobs = self.root.join("blobs");
        let path = blobs.join(file_name(&blob.digest));
        let _download = self.lock(&format!("blob-{}", file_name(&blob.digest)), true, progress)?;
        let file = match source {
            Source::Registry(registry) => crate::blobs::download(registry, blob, &path, progress)?,
            Source::Layout(archive) => archive.copy(&blob.digest, None, &blobs)?,
            Source::Docker(archive, saved) => {
                archive.copy(&blob.digest, saved.layers.get(at).map(String::as_str), &blobs)?
            }
        };
        progress(Step::Unpacking { layer: &blob.digest });
        let partial = self.partial("layers")?;
        let root = partial.0.join("root");
        let unpacked = fs::create_dir(&root).map_err(Fault::from).and_then(|()| {
            let compressed = file.metadata()?.len();
            layer::unpack(file, diff_id, &root, Most::of(compressed))
        });
        let layer = unpacked.map_err(|fault| self.layer_failure(fault, name, &blob.digest))?;
        let text = serde_json::to_vec(&layer).map_err(|error| wrong(&self.root, error.into()))?;
        let place = self.root.join("layers").join(file_name(diff_id));
        let finish = || {
            fs::write(partial.0.join("layer.json"), text)?;
            partial.keep(&place)?;
            fs::remove_file(&path)
        };
        finish().map_err(|error| wrong(&self.root, error))?;
        progress(Step::Unpacked { layer: &blob.digest });
        Ok(())
    }

    pub(super) fn layer_failure(&self, fault: Fault, name: &Name, layer: &str) -> Failure {
        let _ = fs::remove_file(self.root.join("blobs").join(file_name(layer)));
        match fault {
            Fault::Io(error) => wrong(&self.root, error),
            Fault::OtherDigest => digest::other_digest(&format!("The unpacked layer {layer}")),
            Fault::TooLarge(why) => failure(
                Code::ImageTooLarge,
                format!("The layer {layer} of the image {name} is not unpacked: {why}. Name an image that is smaller."),
            ),
            Fault::Hostile(why) => failure(
                Code::ImageBadLayer,
                format!(
                    "The layer {layer} of the image {name} is not unpacked: {why}. Build the image anew, or do not trust it."
                ),
            ),
        }
    }

    /// Makes the tree of an image whose layers are there, and records that it is complete.
    pub(super) fn finish(&self, wanted: &Wanted, progress: Progress<'_>) -> Result<Image, Failure> {
        let gone = || wrong(&self.root, io::Error::other("a layer was removed meanwhile"));
        let layers = wanted.diff_ids.iter().map(|id| self.layer(id).ok_or_else(gone));
        let layers = layers.collect::<Result<Vec<_>, _>>()?;
        let key = file_name(&digest_of(wanted.diff_ids.join("\n").as_bytes()));
        let place = self.root.join("trees").join(&key);
        {
            let _mine = self.lock(&format!("tree-{key}"), true, progress)?;
            if !place.is_dir() {
                let partial = self.partial("trees")?;
                let merged = tree::merge(&layers, &partial.0);
                merged.map_err(|fault| match fault {
                    Fault::Io(error) => wrong(&self.root, error),
                    fault => wrong(&self.root, io::Error::other(format!("{fault:?}"))),
                })?;
                partial.keep(&place).map_err(|error| wrong(&self.root, error))?;
            }
        }
        let sum = |of: fn(&Layer) -> u64| layers.iter().map(|(_, layer)| of(layer)).sum();
        let record = Record {
            digest: wanted.digest.clone(),
            tree: key,
            config: wanted.config.clone(),
            layers: wanted.diff_ids.clone(),
            bytes: sum(|layer| layer.bytes),
            entries: sum(|layer| layer.entries),
            left_out: sum(|layer| layer.left_out),
            pulled: now(),
        };
        let text = serde_json::to_vec(&record).map_err(|error| wrong(&self.root, error.into()))?;
        let path = self
            .root
            .join("records")
            .join(format!("{}.json", file_name(&wanted.digest)));
        write_atomically(&path, &text).map_err(|error| wrong(&self.root, error))?;
        self.hold(&wanted.digest).map_err(|error| wrong(&self.root, error))?;
        Ok(Image { record, tree: place })
    }
}
