//! The images of a run's outputs, as a page shows them that needs nothing beside it.

use crate::{
    client::Client,
    runfiles::{self, Remote},
    trouble::Trouble,
};
use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use contract::row::RunRow;
use serde_json::Value;
use std::io::Read;

/// The kinds that a page shows: none of them can hold code.
const KINDS: [&str; 5] = ["png", "jpeg", "gif", "webp", "bmp"];
/// The most bytes of one image, and of all images of a run's page.
const MOST: (usize, usize) = (4 << 20, 32 << 20);

/// The images of one run.
pub(crate) struct Images<'a> {
    client: &'a Client,
    run: &'a str,
    left: usize,
}

/// An image as promptflow writes it in an output.
#[derive(Debug, PartialEq, Eq)]
enum Reference<'a> {
    /// The name of a file beside the outputs.
    File(&'static str, &'a str),
    Inline(&'static str, Vec<u8>),
}

impl<'a> Images<'a> {
    pub(crate) fn of_run(client: &'a Client, row: &'a RunRow) -> Self {
        Self {
            client,
            run: &row.id,
            left: MOST.1,
        }
    }

    /// The images in an output, each as a picture or as a word on why it is none.
    ///
    /// # Errors
    ///
    /// When the service is not there.
    pub(crate) fn of(&mut self, output: Option<&Value>) -> Result<String, Box<Trouble>> {
        let mut found = Vec::new();
        output.into_iter().for_each(|output| find(output, &mut found));
        let mut html = String::new();
        for reference in found {
            let (kind, bytes) = match reference {
                Reference::Inline(kind, bytes) => (kind, Some(bytes)),
                Reference::File(kind, name) => (kind, self.read(name)?),
            };
            match bytes.filter(|bytes| bytes.len() <= MOST.0.min(self.left)) {
                Some(bytes) => {
                    self.left -= bytes.len();
                    html.push_str(&picture(kind, &bytes));
                }
                None => html
                    .push_str("<p>(an image that is not here, or too large for the page: pfsession runs download)</p>"),
            }
        }
        Ok(html)
    }

    /// A file beside the outputs; one byte more than is shown of one that is too large.
    fn read(&self, name: &str) -> Result<Option<Vec<u8>>, Box<Trouble>> {
        let Some(file) = Remote::open(self.client, self.run, &format!("output/{name}"), false)? else {
            return Ok(None);
        };
        let mut bytes = Vec::new();
        let read = file.take(MOST.0 as u64 + 1).read_to_end(&mut bytes);
        read.map_err(|error| runfiles::unread(&error))?;
        Ok(Some(bytes))
    }
}

/// An image within a page. Base64 has no character that HTML acts on, and the kind is one of our
/// own words.
fn picture(kind: &str, bytes: &[u8]) -> String {
    format!(
        "<img alt=\"\" src=\"data:image/{kind};base64,{}\">",
        BASE64.encode(bytes)
    )
}

/// Finds the images in an output.
fn find<'a>(value: &'a Value, found: &mut Vec<Reference<'a>>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| find(item, found)),
        Value::Object(members) => {
            let image = match members.iter().next() {
                Some((key, Value::String(text))) if members.len() == 1 => reference(key, text),
                _ => None,
            };
            match image {
                Some(image) => found.push(image),
                None => members.values().for_each(|member| find(member, found)),
            }
        }
        _ => {}
    }
}

/// The image of `data:image/png;path` or `data:image/png;base64`. A URL is not asked for: a page
/// sends nothing.
fn reference<'a>(key: &str, text: &'a str) -> Option<Reference<'a>> {
    let (kind, way) = key.strip_prefix("data:image/")?.split_once(';')?;
    let kind = if kind == "jpg" { "jpeg" } else { kind };
    let kind = KINDS
        .into_iter()
        .find(|known| *known == kind || kind == "*" && *known == "png")?;
    match way {
        // What has another folder in its name is none of the outputs'.
        "path" if !text.contains(['/', '\\']) && !text.starts_with('.') => Some(Reference::File(kind, text)),
        "base64" => BASE64.decode(text).ok().map(|bytes| Reference::Inline(kind, bytes)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_image_is_a_file_beside_the_outputs_or_bytes_and_nothing_else() {
        let output = json!({
            "a": { "data:image/png;path": "1.png" },
            "b": [{ "data:image/jpg;base64": "AAEC" }, { "data:image/gif;path": "../secret" }, { "data:image/gif;path": ".." }],
            "c": { "data:image/svg+xml;path": "1.svg" },
            "d": { "data:image/png;url": "https://elsewhere/1.png" },
            "e": { "data:image/png\" onerror=\"x;base64": "AAEC" },
            "f": { "data:image/png;base64": "\"><script>" },
            "g": { "data:image/png;path": "2.png", "more": 1 },
        });
        let mut found = Vec::new();
        find(&output, &mut found);
        assert_eq!(
            found,
            [
                Reference::File("png", "1.png"),
                Reference::Inline("jpeg", vec![0, 1, 2])
            ]
        );
        assert_eq!(
            picture("jpeg", &[0, 1, 2]),
            r#"<img alt="" src="data:image/jpeg;base64,AAEC">"#
        );
    }
}
