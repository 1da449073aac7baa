//! Pages of a package index: what they say in either form, and the same for uv with the broker's
//! own links.

use percent_encoding::percent_decode_str;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::{borrow::Cow, collections::BTreeMap, fmt::Write};
use url::Url;

/// A file that a page links to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) filename: String,
    /// Without a fragment.
    pub(crate) url: Url,
    pub(crate) hashes: BTreeMap<String, String>,
    pub(crate) requires_python: Option<String>,
    /// The reason if it is yanked, which may be empty.
    pub(crate) yanked: Option<String>,
    /// The hashes of its metadata, if the index offers that beside the file; there may be none.
    pub(crate) metadata: Option<BTreeMap<String, String>>,
    pub(crate) size: Option<u64>,
    pub(crate) upload_time: Option<String>,
}

impl Link {
    pub(crate) fn sha256(&self) -> Option<&str> {
        sha256(&self.hashes)
    }
}

/// The SHA-256 of a set of hashes, if it is one.
pub(crate) fn sha256(hashes: &BTreeMap<String, String>) -> Option<&str> {
    let hash = hashes.get("sha256")?;
    let is_hash = hash.len() == 64
        && hash
            .bytes()
            .all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    is_hash.then_some(hash.as_str())
}

/// A name with its separators as indexes have them.
///
/// # Source
///
/// <https://packaging.python.org/en/latest/specifications/name-normalization/>.
pub(crate) fn normalize(name: &str) -> String {
    let parts = name.split(['-', '_', '.']).filter(|part| !part.is_empty());
    parts.collect::<Vec<_>>().join("-").to_ascii_lowercase()
}

/// The media types that the broker asks an index for.
pub(crate) const ACCEPT: &str =
    "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.01";

const JSON: &str = "application/vnd.pypi.simple.v1+json";

/// Reads a page.
///
/// * `kind`: its content type.
/// * `base`: where it was found at last; links are relative to that.
///
/// # Errors
///
/// Why it is none.
///
/// # Source
///
/// PEP 503 and 691 (the simple repository API), 592 (yanked), 658 and 714 (metadata).
pub(crate) fn parse(body: &[u8], kind: &str, base: &Url) -> Result<Vec<Link>, String> {
    let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match kind.as_str() {
        JSON => parse_json(body, base),
        "text/html" | "application/xhtml+xml" | "application/vnd.pypi.simple.v1+html" => {
            parse_html(&String::from_utf8_lossy(body), base)
        }
        other => Err(format!("it answers with {other:?}, which is no page of an index")),
    }
}

#[derive(Deserialize)]
struct JsonPage {
    meta: Meta,
    files: Vec<JsonFile>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Meta {
    api_version: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct JsonFile {
    filename: String,
    url: String,
    #[serde(default)]
    hashes: BTreeMap<String, String>,
    requires_python: Option<String>,
    #[serde(default)]
    yanked: Word,
    core_metadata: Option<Metadata>,
    dist_info_metadata: Option<Metadata>,
    data_dist_info_metadata: Option<Metadata>,
    size: Option<u64>,
    upload_time: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Word {
    Is(bool),
    Why(String),
}

impl Default for Word {
    fn default() -> Self {
        Self::Is(false)
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Metadata {
    Is(bool),
    Hashes(BTreeMap<String, String>),
}

fn parse_json(body: &[u8], base: &Url) -> Result<Vec<Link>, String> {
    let page: JsonPage =
        serde_json::from_slice(body).map_err(|error| format!("its page is not as it should be: {error}"))?;
    if !page.meta.api_version.starts_with("1.") {
        return Err(format!(
            "its pages are of version {:?}, which is not known here",
            page.meta.api_version
        ));
    }
    let links = page.files.into_iter().filter_map(|file| {
        let metadata = file
            .core_metadata
            .or(file.dist_info_metadata)
            .or(file.data_dist_info_metadata);
        Some(Link {
            url: target(&file.url, base)?.0,
            filename: Some(file.filename).filter(|name| is_filename(name))?,
            hashes: file.hashes,
            requires_python: file.requires_python,
            yanked: match file.yanked {
                Word::Is(false) => None,
                Word::Is(true) => Some(String::new()),
                Word::Why(why) => Some(why),
            },
            metadata: match metadata {
                None | Some(Metadata::Is(false)) => None,
                Some(Metadata::Is(true)) => Some(BTreeMap::new()),
                Some(Metadata::Hashes(hashes)) => Some(hashes),
            },
            size: file.size,
            upload_time: file.upload_time,
        })
    });
    Ok(links.collect())
}

fn parse_html(text: &str, base: &Url) -> Result<Vec<Link>, String> {
    let page =
        tl::parse(text, tl::ParserOptions::default()).map_err(|error| format!("its page cannot be read: {error}"))?;
    let mut base = Cow::Borrowed(base);
    let mut links = Vec::new();
    for tag in page.nodes().iter().filter_map(|node| node.as_tag()) {
        let attribute = |name: &str| {
            let value = tag.attributes().get(name)?;
            let value = value.map_or(Cow::Borrowed(""), |value| value.as_utf8_str());
            Some(html_escape::decode_html_entities(&value).into_owned())
        };
        match tag.name().as_bytes() {
            b"base" => {
                if let Some(other) = attribute("href").and_then(|href| base.join(&href).ok()) {
                    base = Cow::Owned(other);
                }
            }
            b"a" => links.extend(attribute("href").and_then(|href| {
                let (url, hashes) = target(&href, &base)?;
                let last = url.path_segments()?.next_back()?.to_owned();
                let filename = percent_decode_str(&last)
                    .decode_utf8()
                    .ok()
                    .map(Cow::into_owned)
                    .filter(|name| is_filename(name))?;
                let metadata = attribute("data-core-metadata").or_else(|| attribute("data-dist-info-metadata"));
                Some(Link {
                    filename,
                    url,
                    hashes,
                    requires_python: attribute("data-requires-python"),
                    yanked: attribute("data-yanked"),
                    metadata: metadata.filter(|word| word != "false").map(|word| {
                        let hash = word.split_once('=');
                        hash.map(|(kind, hash)| (kind.to_owned(), hash.to_owned()))
                            .into_iter()
                            .collect()
                    }),
                    size: None,
                    upload_time: None,
                })
            })),
            _ => {}
        }
    }
    Ok(links)
}

/// The target of a link, and the hash in its fragment; `None` for what is not on a network.
fn target(href: &str, base: &Url) -> Option<(Url, BTreeMap<String, String>)> {
    let mut url = base.join(href.trim()).ok()?;
    let hash = url
        .fragment()
        .and_then(|fragment| fragment.split('&').find_map(|part| part.split_once('=')));
    let hashes = hash
        .filter(|(kind, _)| *kind != "egg")
        .map(|(kind, hash)| (kind.to_owned(), hash.to_ascii_lowercase()));
    let hashes = hashes.into_iter().collect();
    url.set_fragment(None);
    matches!(url.scheme(), "http" | "https").then_some((url, hashes))
}

/// Whether it may be the last part of a path.
fn is_filename(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 512
        && name
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && !b"/\\?#%".contains(&byte))
}

/// A page with other links in the place of its own.
///
/// * `place`: the path of a link on the broker.
pub(crate) fn to_json(links: &[Link], place: impl Fn(&Link) -> String) -> Vec<u8> {
    #[derive(Serialize)]
    #[serde(rename_all = "kebab-case")]
    struct File<'a> {
        filename: &'a str,
        url: String,
        hashes: &'a BTreeMap<String, String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        requires_python: Option<&'a str>,
        yanked: Value,
        core_metadata: Value,
        #[serde(skip_serializing_if = "Option::is_none")]
        size: Option<u64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        upload_time: Option<&'a str>,
    }
    let files: Vec<File<'_>> = links
        .iter()
        .map(|link| File {
            filename: &link.filename,
            url: place(link),
            hashes: &link.hashes,
            requires_python: link.requires_python.as_deref(),
            yanked: match link.yanked.as_deref() {
                None => json!(false),
                Some("") => json!(true),
                Some(why) => json!(why),
            },
            core_metadata: match &link.metadata {
                None => json!(false),
                Some(hashes) if hashes.is_empty() => json!(true),
                Some(hashes) => json!(hashes),
            },
            size: link.size,
            upload_time: link.upload_time.as_deref(),
        })
        .collect();
    json!({ "meta": { "api-version": "1.0" }, "name": "", "files": files })
        .to_string()
        .into_bytes()
}

/// The same as HTML, which is what uv reads of `--find-links`.
pub(crate) fn to_html(links: &[Link], place: impl Fn(&Link) -> String) -> Vec<u8> {
    let mut page = "<!DOCTYPE html><html><body>\n".to_owned();
    let escaped = |text: &str| html_escape::encode_quoted_attribute(text).into_owned();
    for link in links {
        let hash = link.sha256().map(|hash| ("sha256", hash));
        let hash = hash.or_else(|| {
            link.hashes
                .iter()
                .next()
                .map(|(kind, hash)| (kind.as_str(), hash.as_str()))
        });
        let fragment = hash.map(|(kind, hash)| format!("#{kind}={hash}")).unwrap_or_default();
        let _ = write!(page, "<a href=\"{}\"", escaped(&(place(link) + &fragment)));
        let metadata = link.metadata.as_ref().map(|hashes| match sha256(hashes) {
            Some(hash) => format!("sha256={hash}"),
            None => "true".to_owned(),
        });
        for (name, value) in [
            ("requires-python", link.requires_python.as_deref()),
            ("yanked", link.yanked.as_deref()),
            ("core-metadata", metadata.as_deref()),
        ] {
            if let Some(value) = value {
                let _ = write!(page, " data-{name}=\"{}\"", escaped(value));
            }
        }
        let _ = writeln!(page, ">{}</a>", escaped(&link.filename));
    }
    page.push_str("</body></html>\n");
    page.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base() -> Url {
        Url::parse("https://index.example/simple/alpha/").unwrap()
    }

    fn hash(of: char) -> String {
        of.to_string().repeat(64)
    }

    #[test]
    fn a_page_says_the_same_in_both_forms() {
        let (a, b) = (hash('a'), hash('b'));
        let html = format!(
            "<!DOCTYPE html><html><head><base href=\"/simple/alpha/\"></head><body><h1>alpha</h1>\n\
             <a href=\"../../files/alpha-1.0-py3-none-any.whl#sha256={a}\" data-requires-python=\"&gt;=3.8,&lt;4\" data-core-metadata=\"sha256={b}\">x</a><br>\n\
             <A HREF='https://files.example/alpha-2.0%2Blocal.tar.gz?x=1&amp;y=2' data-yanked=\"it &quot;breaks&quot;\">y</A>\n\
             <a href=\"file:///etc/passwd\">z</a> <a href=\"/etc/\">z</a> <a>z</a></body></html>"
        );
        let html = html.replace("<A HREF", "<a href").replace("</A>", "</a>");
        let json = json!({ "meta": { "api-version": "1.1" }, "name": "alpha", "files": [
            { "filename": "alpha-1.0-py3-none-any.whl", "url": "/files/alpha-1.0-py3-none-any.whl", "hashes": { "sha256": a },
              "requires-python": ">=3.8,<4", "core-metadata": { "sha256": b }, "yanked": false },
            { "filename": "alpha-2.0+local.tar.gz", "url": "https://files.example/alpha-2.0%2Blocal.tar.gz?x=1&y=2", "hashes": {},
              "yanked": "it \"breaks\"" },
            { "filename": "passwd", "url": "file:///etc/passwd", "hashes": {} },
            { "filename": "../passwd", "url": "https://files.example/passwd", "hashes": {} },
        ]});
        let of_html = parse(html.as_bytes(), "text/html; charset=utf-8", &base()).unwrap();
        let of_json = parse(json.to_string().as_bytes(), JSON, &base()).unwrap();
        assert_eq!(of_html, of_json);
        assert_eq!(of_html.len(), 2);
        assert_eq!(
            of_html[0].url.as_str(),
            "https://index.example/files/alpha-1.0-py3-none-any.whl"
        );
        assert_eq!((of_html[0].sha256(), of_html[1].sha256()), (Some(a.as_str()), None));

        let place = |link: &Link| format!("/token/file/{}", link.filename);
        let own = Url::parse("http://127.0.0.1:1/token/index/0/simple/alpha/").unwrap();
        let again = parse(&to_json(&of_html, place), JSON, &own).unwrap();
        let again_html = parse(&to_html(&of_html, place), "text/html", &own).unwrap();
        assert_eq!(again, again_html);
        for (link, before) in again.iter().zip(&of_html) {
            assert_eq!(
                link.url.as_str(),
                format!("http://127.0.0.1:1/token/file/{}", before.filename)
            );
            let url = before.url.clone();
            assert_eq!(Link { url, ..link.clone() }, *before);
        }
    }

    #[test]
    fn what_is_no_page_is_refused_with_its_reason() {
        for (body, kind) in [
            ("{}", JSON),
            (r#"{"meta":{"api-version":"2.0"},"files":[]}"#, JSON),
            ("<html>", "text/plain"),
            ("", ""),
        ] {
            assert!(parse(body.as_bytes(), kind, &base()).is_err(), "{body} {kind}");
        }
    }
}
