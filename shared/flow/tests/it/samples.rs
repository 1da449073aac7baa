//! The flows in `tests/flows` are flows by this crate's own rules.

use std::{fs, path::Path};

#[test]
fn every_sample_flow_has_a_kind_an_environment_a_view_and_data() {
    let all = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/flows");
    let mut flows = 0;
    for entry in fs::read_dir(all).unwrap() {
        let folder = entry.unwrap().path();
        // What several flows include is none, and what was recorded of promptflow has a test of its
        // own.
        if !folder.is_dir() || folder.ends_with("shared-lib") || folder.ends_with("recorded") {
            continue;
        }
        flows += 1;
        let root = flow::include_root(&folder);
        let kind = flow::kind(&folder).unwrap();
        let view = flow::view::list(&folder, &root).unwrap();
        flow::environment(&folder, &root).unwrap();
        assert_ne!(kind, flow::Kind::Folder, "{folder:?}");
        assert_eq!(view.warnings, [""; 0], "{folder:?}");
        if folder.join("run.yml").exists() {
            flow::run_yaml(&folder.join("run.yml")).unwrap();
        }
        let lines = |name: &str| {
            fs::read_to_string(folder.join(name))
                .ok()
                .map(|text| text.lines().count())
        };
        let data = lines("data.jsonl").unwrap();
        assert_eq!(
            lines("expected.jsonl").unwrap_or(data),
            data,
            "{folder:?}: an output a line of data, `null` where it fails"
        );
    }
    assert!(flows >= 7);
}
