//! The HTTP client of an SDK: by TLS to AWS, plain to an emulator, or through the socket of a host
//! on this machine.

use aws_smithy_http_client::{
    Builder,
    tls::{Provider, rustls_provider::CryptoMode},
};
use aws_smithy_runtime_api::client::{
    http::{HttpConnector, HttpConnectorFuture, SharedHttpClient, SharedHttpConnector, http_client_fn},
    orchestrator::{HttpRequest, HttpResponse},
    result::ConnectorError,
};
use aws_smithy_types::body::SdkBody;
use hyper::Uri;
use hyper_util::{
    client::legacy::{Client, Error},
    rt::{TokioExecutor, TokioIo, TokioTimer},
};
use std::{
    future::Future,
    io,
    path::{Path, PathBuf},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tokio::net::UnixStream;

/// The prefix of an endpoint that is a socket: its path follows.
pub const UNIX: &str = "unix:";
/// The URL that an SDK takes for such an endpoint. Nobody connects to it.
pub const LOCALHOST: &str = "http://localhost";
/// The time for which an unused connection is kept. The host keeps it for longer.
const IDLE: Duration = Duration::from_secs(60);

/// The HTTP client for an endpoint, and the URL that requests are made and signed for.
///
/// * `endpoint`: `unix:<path>`, a URL, or nothing for AWS itself.
pub fn http_client(endpoint: Option<&str>) -> (SharedHttpClient, Option<&str>) {
    match endpoint {
        Some(url) if url.starts_with(UNIX) => (through(Path::new(&url[UNIX.len()..])), Some(LOCALHOST)),
        Some(url) if url.starts_with("http://") => (Builder::new().build_http(), endpoint),
        _ => {
            let tls = Provider::Rustls(CryptoMode::Ring);
            (Builder::new().tls_provider(tls).build_https(), endpoint)
        }
    }
}

/// A client that speaks through the socket at `path`, wherever its requests are addressed to.
fn through(path: &Path) -> SharedHttpClient {
    let socket = Socket(Arc::new(path.to_owned()));
    let client = Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE)
        .build(socket);
    let connector = SharedHttpConnector::new(Through(client));
    // All of an SDK's clients share its connections.
    http_client_fn(move |_, _| connector.clone())
}

/// Makes connections to one socket.
#[derive(Clone, Debug)]
struct Socket(Arc<PathBuf>);

impl tower_service::Service<Uri> for Socket {
    type Response = TokioIo<UnixStream>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let path = self.0.clone();
        Box::pin(async move { crate::connect_async(&path).await.map(TokioIo::new) })
    }
}

#[derive(Debug)]
struct Through(Client<Socket, SdkBody>);

impl HttpConnector for Through {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let request = match request.try_into_http1x() {
            Ok(request) => request,
            Err(error) => return HttpConnectorFuture::ready(Err(ConnectorError::user(error.into()))),
        };
        let answer = self.0.request(request);
        HttpConnectorFuture::new(async move {
            let answer = answer.await.map_err(meaning)?;
            HttpResponse::try_from(answer.map(SdkBody::from_body_1_x))
                .map_err(|error| ConnectorError::other(error.into(), None))
        })
    }
}

/// Maps an error for an SDK's retries. Every request of ours may be sent twice, so a connection
/// that breaks off is worth a retry.
fn meaning(error: Error) -> ConnectorError {
    ConnectorError::io(error.into())
}
