//! S3, as far as it is used: a look, an address to send to, a get. Each is a URL that is signed for
//! some minutes; the SDK would bring three times this crate into each function for the same.

use crate::Fault;
use aws_credential_types::{
    Credentials,
    provider::{ProvideCredentials, SharedCredentialsProvider},
};
use aws_sigv4::{
    http_request::{
        PercentEncodingMode, SignableBody, SignableRequest, SignatureLocation, SigningSettings,
        UriPathNormalizationMode, sign,
    },
    sign::v4,
};
use aws_smithy_runtime_api::client::identity::Identity;
use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use contract::{
    route::encode_part,
    snapshot::{Address, MOST_BYTES, Upload},
};
use lifecycle::{Code, Failure};
use sha2::{Digest, Sha256};
use std::{
    fs,
    io::{Read, Write},
    path::Path,
    time::{Duration, SystemTime},
};
use ureq::tls::{RootCerts, TlsConfig};

/// The time in which an upload has to begin after its address was given.
pub(crate) const TO_SEND: Duration = Duration::from_secs(600);
/// The longest time of a request of this crate's own.
pub(crate) const TO_ASK: Duration = Duration::from_secs(60);
/// An object sent longer ago than this is sent again, so that it does not expire while it is in
/// use. The template's bucket keeps for at least twice as long.
pub const FRESH: Duration = Duration::from_secs(30 * 24 * 3600);

/// An object store that speaks as S3 does.
#[derive(Clone)]
pub struct Store {
    endpoint: Option<String>,
    region: String,
    credentials: SharedCredentialsProvider,
    http: ureq::Agent,
}

impl Store {
    /// * `endpoint`: where S3 is; without it, AWS's own of the region.
    /// * `patience`: how long one object may take to come.
    pub fn new(
        endpoint: Option<&str>,
        region: &str,
        credentials: impl ProvideCredentials + 'static,
        patience: Duration,
    ) -> Self {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .timeout_connect(Some(Duration::from_secs(5)))
            .timeout_global(Some(patience))
            .tls_config(TlsConfig::builder().root_certs(RootCerts::PlatformVerifier).build());
        Self {
            endpoint: endpoint.map(|url| url.trim_end_matches('/').to_owned()),
            region: region.to_owned(),
            credentials: SharedCredentialsProvider::new(credentials),
            http: config.build().into(),
        }
    }

    /// The store that AWS's usual variables lead to, for a function.
    ///
    /// * `look`: gives the value of an environment variable.
    ///
    /// `None` if there are no credentials or no region.
    pub fn from_environment(look: impl Fn(&str) -> Option<String>, patience: Duration) -> Option<Self> {
        let credentials = Credentials::new(
            look("AWS_ACCESS_KEY_ID")?,
            look("AWS_SECRET_ACCESS_KEY")?,
            look("AWS_SESSION_TOKEN"),
            None,
            "environment",
        );
        let endpoint = look("AWS_ENDPOINT_URL_S3").or_else(|| look("AWS_ENDPOINT_URL"));
        Some(Self::new(
            endpoint.as_deref(),
            &look("AWS_REGION")?,
            credentials,
            patience,
        ))
    }

    /// Whether an object is there and will be for long.
    ///
    /// # Errors
    ///
    /// [`Fault::NotNow`].
    pub async fn has(&self, address: &Address) -> Result<bool, Fault> {
        let url = self.sign("HEAD", &address.bucket, &address.key(), &[], TO_ASK).await?;
        let answer = self.ask(move |http| http.head(&url).call()).await?;
        let sent = answer
            .headers()
            .get("last-modified")
            .and_then(|at| httpdate::parse_http_date(at.to_str().ok()?).ok());
        match answer.status().as_u16() {
            200 => Ok(sent.is_some_and(|at| at.elapsed().is_ok_and(|age| age < FRESH) || at > SystemTime::now())),
            // Where nobody may list, what is not there is refused.
            403 | 404 => Ok(false),
            status => Err(not_now(&format!("it answered {status}"))),
        }
    }

    /// The request that uploads an object: exactly these bytes, of exactly this digest, or it is
    /// not taken.
    ///
    /// # Errors
    ///
    /// [`Fault::NotNow`], if there are no credentials now.
    pub async fn upload(&self, address: &Address, bytes: u64) -> Result<Upload, Fault> {
        let headers = [
            ("content-length", bytes.to_string()),
            ("x-amz-checksum-sha256", checksum(&address.digest)),
        ];
        Ok(Upload {
            url: self
                .sign("PUT", &address.bucket, &address.key(), &headers, TO_SEND)
                .await?,
            headers: headers
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value))
                .collect(),
        })
    }

    /// Gets an object into the file `to`, which is made.
    ///
    /// # Errors
    ///
    /// `Snapshot.Missing`, `Snapshot.Refused`, `Snapshot.TooLarge`, `Snapshot.Damaged`,
    /// `Snapshot.NoRoom`; [`Fault::NotNow`] with `Snapshot.Unreachable`.
    pub async fn get(&self, address: &Address, to: &Path) -> Result<(), Fault> {
        let url = self.sign("GET", &address.bucket, &address.key(), &[], TO_ASK).await?;
        let (address, to) = (address.clone(), to.to_owned());
        self.blocking(move |http| {
            let mut answer = http.get(&url).call().map_err(|error| not_now(&flow::redact(&error.to_string())))?;
            match answer.status().as_u16() {
                200 => {}
                404 => {
                    return Err(wrong(
                        Code::SnapshotMissing,
                        format!("There is no {address} (any more)"),
                        "Send the flow again with pfsession, which uploads it",
                    ));
                }
                status @ 400..=499 if status != 429 => {
                    return Err(wrong(
                        Code::SnapshotRefused,
                        format!("The store answers {status} to a request for {address} here: it is not there, or may not be read"),
                        "Send the flow again with pfsession, which uploads it; if that does not help, give this role s3:GetObject there",
                    ));
                }
                status => return Err(not_now(&format!("it answered {status}"))),
            }
            copy(answer.body_mut().as_reader(), &address, &to)
        })
        .await
    }

    pub(crate) async fn ask<T: Send + 'static>(
        &self,
        call: impl FnOnce(&ureq::Agent) -> Result<T, ureq::Error> + Send + 'static,
    ) -> Result<T, Fault> {
        self.blocking(move |http| call(http).map_err(|error| not_now(&flow::redact(&error.to_string()))))
            .await
    }

    pub(crate) async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&ureq::Agent) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, Fault> {
        let http = self.http.clone();
        tokio::task::spawn_blocking(move || work(&http))
            .await
            .unwrap_or_else(|error| Err(not_now(&error.to_string())))
    }

    /// A URL that is good for one request of this kind with these headers, for a time.
    pub(crate) async fn sign(
        &self,
        method: &str,
        bucket: &str,
        key: &str,
        headers: &[(&str, String)],
        life: Duration,
    ) -> Result<String, Fault> {
        let credentials = self
            .credentials
            .provide_credentials()
            .await
            .map_err(|error| not_now(&error.to_string()))?;
        let url = match &self.endpoint {
            Some(endpoint) => format!("{endpoint}/{bucket}/{key}"),
            None => {
                let suffix = if self.region.starts_with("cn-") { ".cn" } else { "" };
                format!("https://{bucket}.s3.{}.amazonaws.com{suffix}/{key}", self.region)
            }
        };
        presign(method, url, headers, credentials, &self.region, SystemTime::now(), life)
            .map_err(|error| not_now(&error))
    }
}

/// # Source
///
/// "Authenticating Requests: Using Query Parameters (AWS Signature Version 4)" (Amazon S3 API
/// reference).
fn presign(
    method: &str,
    url: String,
    headers: &[(&str, String)],
    credentials: Credentials,
    region: &str,
    now: SystemTime,
    life: Duration,
) -> Result<String, String> {
    let identity: Identity = credentials.into();
    let mut settings = SigningSettings::default();
    settings.signature_location = SignatureLocation::QueryParams;
    settings.expires_in = Some(life);
    settings.percent_encoding_mode = PercentEncodingMode::Single;
    settings.uri_path_normalization_mode = UriPathNormalizationMode::Disabled;
    let params = v4::SigningParams::builder()
        .identity(&identity)
        .region(region)
        .name("s3")
        .time(now)
        .settings(settings)
        .build()
        .map_err(|error| error.to_string())?
        .into();
    let headers = headers.iter().map(|(name, value)| (*name, value.as_str()));
    let request = SignableRequest::new(method, url.as_str(), headers, SignableBody::UnsignedPayload)
        .map_err(|error| error.to_string())?;
    let (instructions, _) = sign(request, &params).map_err(|error| error.to_string())?.into_parts();
    let query: Vec<String> = instructions
        .params()
        .iter()
        .map(|(name, value)| format!("{name}={}", encode_part(value)))
        .collect();
    Ok(format!("{url}?{}", query.join("&")))
}

/// Copies an object into a file that is made, and sees that it is what its address says.
fn copy(from: impl Read, address: &Address, to: &Path) -> Result<(), Fault> {
    let no_room = |error: std::io::Error| {
        wrong(
            Code::SnapshotNoRoom,
            format!("{address} cannot be written here: {error}"),
            "Free some room on the disk, and try again",
        )
    };
    let mut file = fs::File::create_new(to).map_err(no_room)?;
    let mut hash = Sha256::new();
    let mut from = from.take(MOST_BYTES + 1);
    let mut buffer = vec![0; 1 << 16];
    let mut bytes = 0;
    loop {
        match from.read(&mut buffer).map_err(|error| not_now(&error.to_string()))? {
            0 => break,
            read => {
                bytes += read as u64;
                hash.update(&buffer[..read]);
                file.write_all(&buffer[..read]).map_err(no_room)?;
            }
        }
    }
    if bytes > MOST_BYTES {
        return Err(wrong(
            Code::SnapshotTooLarge,
            format!("{address} has more than {} MiB", MOST_BYTES >> 20),
            "Move out what the flow does not need, such as data and caches",
        ));
    }
    if hex::encode(hash.finalize()) != address.digest {
        return Err(wrong(
            Code::SnapshotDamaged,
            format!("What is at {address} is not what that name says"),
            "Delete that object, and send the flow again with pfsession",
        ));
    }
    Ok(())
}

fn wrong(code: Code, what: String, next: &str) -> Fault {
    Fault::Wrong(Failure::new(code, format!("{what}. {next}.")))
}

/// A digest in hex as S3's header has it.
pub(crate) fn checksum(digest: &str) -> String {
    BASE64.encode(hex::decode(digest).unwrap_or_default())
}

pub(crate) fn not_now(why: &str) -> Fault {
    Fault::NotNow(Failure::new(
        Code::SnapshotUnreachable,
        format!(
            "The store of flow folders cannot be asked: {}. Try again in a moment.",
            why.trim_end_matches('.')
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::UNIX_EPOCH;

    /// The example in the page that [`presigned`] follows.
    #[test]
    fn a_url_is_signed_as_amazons_own_example() {
        let credentials = Credentials::new(
            "AKIAIOSFODNN7EXAMPLE",
            "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
            None,
            None,
            "example",
        );
        let url = presign(
            "GET",
            "https://examplebucket.s3.amazonaws.com/test.txt".to_owned(),
            &[],
            credentials,
            "us-east-1",
            UNIX_EPOCH + Duration::from_secs(1_369_353_600),
            Duration::from_secs(86_400),
        )
        .unwrap();
        assert_eq!(
            url,
            "https://examplebucket.s3.amazonaws.com/test.txt?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20130524%2F\
             us-east-1%2Fs3%2Faws4_request&X-Amz-Date=20130524T000000Z&X-Amz-Expires=86400&X-Amz-SignedHeaders=host&X-Amz-Signature=\
             aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404"
        );
    }
}
