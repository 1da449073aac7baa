//! Installed packages, and why each is there: read from locks, and from what a session has written
//! over its environment.

use crate::lock::{AskedBy, name_of, pin};
use contract::packages::{ByHand, Listed, Package, PackageOrigin};
use sandbox::beneath::{FileType, Folder};
use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
};

/// The packages of an environment.
///
/// * `lock`, `base`: the locks of the environment and of its base image; `asked_by`: of both
///   together.
pub(crate) fn list_packages(lock: &str, base: &str, asked_by: &AskedBy, lines: &[flow::Line]) -> Listed {
    let base: BTreeMap<String, String> = base.lines().filter_map(pin).collect();
    let mut named: BTreeMap<String, String> = BTreeMap::new();
    for line in lines
        .iter()
        .filter(|line| !line.constraint && !line.text.starts_with('-'))
    {
        let Some(name) = name_of(&line.text) else { continue };
        named
            .entry(name)
            .or_insert_with(|| format!("{}:{}", line.file, line.number));
    }
    let mut packages: Vec<Package> = lock
        .lines()
        .filter_map(pin)
        .map(|(name, version)| {
            let named = named.get(&name).cloned();
            let origin = match &named {
                _ if base.get(&name) == Some(&version) => PackageOrigin::BaseImage,
                Some(_) => PackageOrigin::Requirements,
                None => PackageOrigin::Dependency,
            };
            Package {
                asked_by: asked_by.get(&name).cloned().unwrap_or_default(),
                name,
                version,
                origin,
                named,
            }
        })
        .collect();
    packages.sort_by(|a, b| a.name.cmp(&b.name));
    Listed {
        requirements: lines.iter().map(flow::Line::to_shown).collect(),
        packages,
    }
}

/// The place of packages that a session's own code writes.
#[derive(Clone, Debug)]
pub struct Written {
    /// The layer that the session writes; its code decides what all names in it stand for.
    pub(crate) layer: PathBuf,
    /// The packages' folder, relative to the layer.
    pub(crate) site: PathBuf,
}

impl Written {
    /// The folder outside the sandbox.
    pub fn path(&self) -> PathBuf {
        self.layer.join(&self.site)
    }
}

/// The most names that a session's packages' folder is read for.
const MOST_NAMES: usize = 100_000;

/// Lists what a session's own code has installed and taken away: nothing where it has put a link in
/// the place of a folder.
pub fn by_hand(written: &Written) -> Vec<ByHand> {
    let found = read_by_hand(written).unwrap_or_else(|error| {
        if error.kind() != io::ErrorKind::NotFound {
            tracing::warn!(%error, "what the session has installed by hand cannot be read");
        }
        BTreeMap::new()
    });
    found
        .into_iter()
        .map(|(name, version)| ByHand { name, version })
        .collect()
}

fn read_by_hand(written: &Written) -> io::Result<BTreeMap<String, Option<String>>> {
    let mut found: BTreeMap<String, Option<String>> = BTreeMap::new();
    let site = Folder::open(&written.layer)?.folder(&written.site)?;
    for file in site.names(MOST_NAMES)? {
        let Some((name, version)) = file
            .to_str()
            .and_then(|name| name.strip_suffix(".dist-info")?.split_once('-'))
        else {
            continue;
        };
        let name = flow::normalize_name(name);
        let Some(stat) = site.stat(&file)? else { continue };
        if FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0 {
            // An overlay's word for what is gone.
            found.entry(name).or_insert(None);
        } else if site.open_file(&Path::new(&file).join("METADATA")).is_ok() {
            found.insert(name, Some(version.to_owned()));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lock::{
        tests::{LOCK, line},
        without_annotations,
    };

    #[test]
    fn each_package_says_where_it_comes_from() {
        let (lock, asked_by) = without_annotations(LOCK);
        let lines = [
            line(1, "-i https://me:word@host/simple", false),
            line(3, "Flask[async]>=3", false),
            line(4, "Mine @ https://host/a/mine-1.0.whl", false),
            line(5, "blinker<2", true),
        ];
        let listed = list_packages(&lock, "colorama==0.4\nblinker==1.0\n", &asked_by, &lines);
        let told: Vec<String> = listed
            .packages
            .iter()
            .map(|package| {
                format!(
                    "{} {} {:?} {:?} {:?}",
                    package.name, package.version, package.origin, package.named, package.asked_by
                )
            })
            .collect();
        assert_eq!(
            told,
            [
                "blinker 1.9.0 Dependency None [\"flask\", \"other\"]",
                "colorama 0.4 BaseImage None []",
                "flask 3.1.3 Requirements Some(\"requirements.txt:3\") []",
                "mine mine-1.0.whl Requirements Some(\"requirements.txt:4\") []",
            ]
        );
        assert_eq!(
            listed.requirements,
            [
                "-i https://***@host/simple",
                "Flask[async]>=3",
                "Mine @ https://host/a/mine-1.0.whl",
                "-c blinker<2"
            ]
        );
    }

    #[test]
    fn a_link_in_the_place_of_a_sessions_packages_shows_nothing_of_the_host() {
        let place = tempfile::tempdir().unwrap();
        let layer = place.path().join("layer");
        std::fs::create_dir_all(layer.join("upper/lib")).unwrap();
        for folder in [
            "host/site/secret-1.0.dist-info",
            "layer/upper/lib/real/mine-2.0.dist-info",
        ] {
            std::fs::create_dir_all(place.path().join(folder)).unwrap();
            std::fs::write(place.path().join(folder).join("METADATA"), "").unwrap();
        }
        let told = |site: &str| {
            let site = Path::new("upper/lib").join(site);
            by_hand(&Written {
                layer: layer.clone(),
                site,
            })
        };
        assert_eq!(told("real").len(), 1);
        std::os::unix::fs::symlink("../../../host/site", layer.join("upper/lib/false")).unwrap();
        assert_eq!(told("false"), []);
        let inner = layer.join("upper/lib/real/secret-1.0.dist-info");
        std::os::unix::fs::symlink("../../../../host/site/secret-1.0.dist-info", inner).unwrap();
        assert_eq!(told("real").len(), 1);
    }
}
