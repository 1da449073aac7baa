//! `pfsession` against a service behind TLS.

use std::{
    fs,
    io::{Read, Write},
    net::TcpListener,
    path::Path,
    process::{Command, Output},
    sync::Arc,
    thread,
};

/// {"sub":"ann","ws":"lab"}
const TOKEN: &str = "e30.eyJzdWIiOiJhbm4iLCJ3cyI6ImxhYiJ9.x";

/// A service that has no session, behind TLS with a certificate of its own; its address, and the
/// certificate.
fn service() -> (String, String) {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("https://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let connection = rustls::ServerConnection::new(config.clone()).unwrap();
            let mut stream = rustls::StreamOwned::new(connection, stream);
            // Who does not trust the certificate goes without a word.
            if matches!(stream.read(&mut [0; 4096]), Ok(1..)) {
                let body = r#"{"sessions":[]}"#;
                let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close";
                write!(stream, "{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len()).unwrap();
                stream.conn.send_close_notify();
                stream.flush().unwrap();
            }
        }
    });
    (endpoint, made.cert.pem())
}

fn list(endpoint: &str, trusted: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_pfsession"))
        .args(["list", "--json", "--endpoint", endpoint])
        .env("PFSESSION_TOKEN", TOKEN)
        .env("SSL_CERT_FILE", trusted)
        .output()
        .unwrap()
}

#[test]
fn a_service_behind_tls_is_used_if_this_machine_trusts_its_certificate_and_named_if_not() {
    let folder = tempfile::tempdir().unwrap();
    let (endpoint, certificate) = service();
    let (_, another) = service();
    let (trusted, stranger) = (folder.path().join("trusted.pem"), folder.path().join("stranger.pem"));
    fs::write(&trusted, certificate).unwrap();
    fs::write(&stranger, another).unwrap();

    let listed = list(&endpoint, &trusted);
    assert!(listed.status.success(), "{}", String::from_utf8_lossy(&listed.stderr));

    let refused = list(&endpoint, &stranger);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(3), "{said}");
    expect_test::expect![[r#"
        error: The service at ENDPOINT shows a certificate that this machine does not trust: io: invalid peer certificate: BadSignature [Service.NotTrusted]
          next: see that the address is right; for an authority of your own, name its certificate file in SSL_CERT_FILE
    "#]].assert_eq(&said.replace(&endpoint, "ENDPOINT"));
}
