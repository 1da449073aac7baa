//! The lineage of a flow by its repository, on folders of each kind that git makes.

use crate::tree::Tree;
use expect_test::expect;
use std::fs;

const CONFIG: &str =
    "[core]\n\tbare = false\n[remote \"origin\"]\n\turl = https://ann:s3cret@git.example.org/lab/flows.git\n";

#[test]
fn a_flow_has_one_lineage_in_each_clone_work_tree_and_checkout_of_its_repository() {
    let tree = Tree::new(&[
        ("/repo/.git/config", CONFIG),
        ("/repo/.git/worktrees/side/commondir", "../..\n"),
        ("/side/.git", "gitdir: ROOT/repo/.git/worktrees/side\n"),
        ("/side/flow/", ""),
        ("/outer/.git/modules/sub/config", CONFIG),
        ("/outer/sub/.git", "gitdir: ../.git/modules/sub\n"),
        ("/outer/sub/flow/", ""),
    ]);
    let linked = tree.at("/side/.git");
    let root = tree.at("/").display().to_string();
    let text = fs::read_to_string(&linked).unwrap();
    fs::write(
        &linked,
        text.replace("ROOT/", &format!("{}/", root.trim_end_matches('/'))),
    )
    .unwrap();
    for folder in ["/repo/flow", "/side/flow", "/outer/sub/flow"] {
        let lineage = flow::lineage(&tree.at(folder)).unwrap();
        assert_eq!(lineage, "git:git.example.org/lab/flows//flow", "{folder}");
    }
    let root = flow::lineage(&tree.at("/repo")).unwrap();
    assert_eq!(root, "git:git.example.org/lab/flows");
}

#[test]
fn a_folder_without_an_address_says_what_to_do_and_an_origin_is_enough() {
    let tree = Tree::new(&[("/alone/flow/", "")]);
    let failed = |folder: &str| {
        let failure = flow::lineage(&tree.at(folder)).unwrap_err();
        tree.without_root(&failure.to_string())
    };
    let config = tree.at("/repo/.git/config");
    let mut said = vec![failed("/alone/flow"), failed("/repo/flow")];
    for url in ["/srv/ann:s3cret/flows.git", "https://ann:s3/cret@git.example.org/lab"] {
        fs::write(&config, format!("[remote \"origin\"]\nurl = {url}\n")).unwrap();
        said.push(failed("/repo/flow"));
    }
    assert!(!said.join("").contains("cret"), "{said:?}");
    said.dedup();
    expect![[r#"
        Flow.NoRepository: ROOT/alone/flow has no lineage of a repository: it is in no git repository. Give the repository a remote `origin` with an address of HTTPS or SSH, or tell flows apart by their folders.
        Flow.NoRepository: ROOT/repo/flow has no lineage of a repository: its repository has no remote `origin`. Give the repository a remote `origin` with an address of HTTPS or SSH, or tell flows apart by their folders.
        Flow.NoRepository: ROOT/repo/flow has no lineage of a repository: the address of its remote `origin` is one of this machine alone, or has an `@` in its path. Give the repository a remote `origin` with an address of HTTPS or SSH, or tell flows apart by their folders."#]]
    .assert_eq(&said.join("\n"));

    fs::write(&config, CONFIG).unwrap();
    assert!(flow::lineage(&tree.folder()).is_ok(), "as the text says");
}
