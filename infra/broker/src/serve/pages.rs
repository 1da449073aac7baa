//! The pages of packages, with the links as uv is to follow them.

use super::{Answer, Client, Digest, JSON, MOST_FRESH, MOST_PAGES, Server, Sha256, headers_for, lock};
use crate::{
    Fault, Feed, Kind,
    downloads::{Head, MOST_PAGE, now},
    page::{self, Link},
    upstream::{Found, to_shown},
};
use std::{io, sync::Arc};
use ureq::http::{HeaderMap, header};
use url::Url;

impl Server {
    pub(super) fn serve_page(&self, client: &mut Client, feed: usize, package: &str) -> io::Result<()> {
        let Feed { kind, names, .. } = &self.config.feeds[feed];
        let kind = *kind;
        if kind == Kind::Index && !names.has(package) {
            return client.answer(Answer::new(404), b"");
        }
        let key = format!("{feed}/{package}");
        let known = lock(&self.pages).get(&key).cloned();
        let page = match known {
            Some(page) => page,
            None => match self.page(&self.config.feeds[feed], package) {
                Ok(None) => return client.answer(Answer::new(404), b""),
                Ok(Some(mut links)) => {
                    links.retain(|link| kind == Kind::Index || names.has_file(&link.filename));
                    let place = |link: &Link| self.place(feed, &id(link), link);
                    let page = Arc::new(match kind {
                        Kind::Index => page::to_json(&links, place),
                        Kind::Links => page::to_html(&links, place),
                    });
                    let mut pages = lock(&self.pages);
                    let all: usize = pages.values().map(|page| page.len()).sum();
                    if all + page.len() > MOST_PAGES {
                        drop(pages);
                        let why = "one build has asked it for too many packages";
                        return self.fail(client, Fault::unreachable(&self.config.feeds[feed].url, why));
                    }
                    pages.insert(key, Arc::clone(&page));
                    drop(pages);
                    let links = links.into_iter().map(|link| ((feed, id(&link)), Arc::new(link)));
                    lock(&self.links).extend(links);
                    page
                }
                Err(fault) => return self.fail(client, fault),
            },
        };
        let kind = if kind == Kind::Index { JSON } else { "text/html" };
        let answer = Answer::new(200)
            .with(header::CONTENT_TYPE, kind)
            .with(header::CACHE_CONTROL, "no-store");
        client.answer(answer, &page)
    }

    /// The path of a link on this broker; its last part is the file's name.
    pub(super) fn place(&self, feed: usize, id: &str, link: &Link) -> String {
        let name = link.filename.replace('+', "%2B");
        format!("/{}/file/{feed}/{id}/{name}", self.token)
    }

    /// The links of a page; `None` if the index has no such package.
    pub(super) fn page(&self, feed: &Feed, package: &str) -> Result<Option<Vec<Link>>, Fault> {
        let url = page_url(&feed.url, feed.kind, package);
        let is_shared = feed.credential.is_none() && self.upstream.is_checked(&url);
        let known = if is_shared {
            self.downloads.find_page(url.as_str())
        } else {
            None
        };
        let is_offline = self.config.network.is_offline;
        if let Some((head, body)) = &known
            && (is_offline || head.is_fresh() && !self.config.is_refreshing)
        {
            return links_of(&url, head, body).map(Some);
        }
        let known = known.filter(|(head, _)| head.can_be_validated() && !self.config.is_refreshing);
        let headers = headers_for(known.as_ref().map(|(head, _)| head));
        let Found { url: at, mut answer } = self.upstream.ask(feed, &url, false, &headers)?;
        let (head, body) = match (answer.status().as_u16(), known) {
            (304, Some((head, body))) => (
                Head {
                    fresh_until: fresh_until(answer.headers()).unwrap_or(0),
                    ..head
                },
                body,
            ),
            (200, _) => {
                let body = answer.body_mut().with_config().limit(MOST_PAGE).read_to_vec();
                let text = |name| Some(answer.headers().get(name)?.to_str().ok()?.to_owned());
                let head = Head {
                    url: at.to_string(),
                    kind: text(header::CONTENT_TYPE).unwrap_or_default(),
                    etag: text(header::ETAG),
                    last_modified: text(header::LAST_MODIFIED),
                    fresh_until: fresh_until(answer.headers()).unwrap_or(0),
                };
                (head, body.map_err(|error| Fault::unreachable(&at, &error.to_string()))?)
            }
            (404 | 410, _) => return Ok(None),
            (401 | 403, _) => {
                return Err(Fault::Refused {
                    url: to_shown(&feed.url).trim_end_matches('/').to_owned(),
                });
            }
            (status, _) => return Err(Fault::unreachable(&at, &format!("it answers with status {status}"))),
        };
        let links = links_of(&at, &head, &body)?;
        let may_keep = fresh_until(answer.headers()).is_some();
        if is_shared && may_keep && (head.is_fresh() || head.can_be_validated()) && body.len() as u64 <= MOST_PAGE {
            // A page that is not kept is asked for again.
            if let Err(error) = self.downloads.keep_page(url.as_str(), &head, &body) {
                tracing::warn!(%error, "a page of an index cannot be kept");
            }
        }
        Ok(Some(links))
    }
}

/// Whether it is the normalised name of a package.
pub(super) fn is_package(name: &str) -> bool {
    let is_inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    name.len() <= 256
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name
            .bytes()
            .all(|byte| is_inner(byte) || b"-_.".contains(&byte) || byte.is_ascii_uppercase())
}

pub(super) fn page_url(feed: &Url, kind: Kind, package: &str) -> Url {
    let mut url = feed.clone();
    if kind == Kind::Index
        && let Ok(mut path) = url.path_segments_mut()
    {
        path.pop_if_empty().push(package).push("");
    }
    url
}

/// The id of a link in a path.
pub(super) fn id(link: &Link) -> String {
    let mut hash = Sha256::new();
    hash.update(link.url.as_str());
    hash.update(link.sha256().unwrap_or_default());
    hex::encode(&hash.finalize()[..16])
}

pub(super) fn links_of(url: &Url, head: &Head, body: &[u8]) -> Result<Vec<Link>, Fault> {
    let base = Url::parse(&head.url).unwrap_or_else(|_| url.clone());
    page::parse(body, &head.kind, &base).map_err(|why| Fault::unreachable(url, &why))
}

/// Until when a page may be taken for what the index would say now; `None` if it may not be kept at
/// all.
///
/// # Source
///
/// RFC 9111, 5.2.2.
pub(super) fn fresh_until(headers: &HeaderMap) -> Option<u64> {
    let control = headers
        .get(header::CACHE_CONTROL)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let words: Vec<String> = control
        .split(',')
        .map(|word| word.trim().to_ascii_lowercase())
        .collect();
    if words
        .iter()
        .any(|word| word == "no-store" || word.starts_with("private"))
    {
        return None;
    }
    let age = words
        .iter()
        .find_map(|word| word.strip_prefix("max-age=")?.parse::<u64>().ok());
    let age = age.filter(|_| !words.iter().any(|word| word.starts_with("no-cache")));
    Some(age.map_or(0, |age| now() + age.min(MOST_FRESH)))
}
