//! Tokens for people, by the issuer's key.

use std::os::unix::fs::PermissionsExt;
use whole_system::{Machine, flow};

#[test]
fn a_token_made_with_the_issuers_key_opens_the_service_to_its_user_and_no_other_key_does() {
    let machine = Machine::new();
    machine.up();
    let endpoint = machine.api().endpoint;
    let (issuer, other) = (machine.state().join("issuer.key"), machine.state().join("other.key"));
    let folder = flow("one-node");
    let as_bob = |issuer: &std::path::Path, arguments: &[&str]| {
        let token = machine.succeed(&[
            "token",
            "--issuer",
            issuer.to_str().unwrap(),
            "--user",
            "bob",
            "--workspace",
            "local",
        ]);
        let mut command = machine.command(arguments);
        command
            .args(["--endpoint", &endpoint])
            .env("PFSESSION_TOKEN", token.trim());
        command.output().unwrap()
    };

    let shown = as_bob(&issuer, &["show", folder.to_str().unwrap()]);
    let said = String::from_utf8_lossy(&shown.stderr).into_owned();
    assert_eq!(shown.status.code(), Some(4), "bob is known, and has no session: {said}");
    let refused = as_bob(&other, &["list"]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("Access.NoToken"), "{said}");

    let api = machine.api();
    for (path, expected) in [
        (
            "/v1/nothing",
            "Http.NoSuchRoute: There is nothing at this address. The routes begin with /v1/.",
        ),
        (
            "/v1/runs/x",
            "Http.NotFound: There is no run x, or none that you may see.",
        ),
    ] {
        let said = api.get::<serde_json::Value>(path).expect_err("there is nothing");
        assert_eq!(said, (404, expected.to_owned()));
    }

    let mode = std::fs::metadata(&other).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let public = machine.succeed(&["token", "--issuer", other.to_str().unwrap(), "--public"]);
    assert!(public.starts_with("-----BEGIN PUBLIC KEY-----"), "{public}");
}
