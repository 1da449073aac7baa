//! Reads of the HTTP front.

use crate::{
    Aws,
    items::{self, Item, text},
};
use aws_sdk_dynamodb::types::KeysAndAttributes;
use contract::{agent::OutputLine, command::Command, row::LogRow};
use serde::Deserialize;
use shell::{Fault, Ports};

/// The most rows of output of one query.
const ROWS: i32 = 16;
/// The number of lines that is enough for one answer.
const ENOUGH: usize = 500;

/// The body of a row of output. Earlier versions wrote a row for each line.
#[derive(Deserialize)]
#[serde(untagged)]
enum Said {
    Lines(Vec<OutputLine>),
    Line(OutputLine),
}

fn lines_of(row: &Item) -> Result<Vec<OutputLine>, Fault> {
    Ok(match items::body(row)? {
        Said::Lines(lines) => lines,
        Said::Line(line) => vec![line],
    })
}

impl Aws {
    /// Reads a flow's history after a revision, oldest first, at most a few hundred entries.
    ///
    /// # Errors
    ///
    /// [`Fault::Outside`], worth a retry.
    pub async fn history(&self, flow: &str, after: u64) -> Result<Vec<LogRow>, Fault> {
        self.after(
            format!("FLOW#{flow}"),
            format!("LOG#{after:012}"),
            "LOG#~".to_owned(),
            "reading the history",
        )
        .await?
        .iter()
        .map(items::body)
        .collect()
    }

    /// Reads the latest entries of a flow's history, oldest first, at most a few hundred.
    ///
    /// # Errors
    ///
    /// [`Fault::Outside`], worth a retry.
    pub async fn latest_history(&self, flow: &str) -> Result<Vec<LogRow>, Fault> {
        let page = self
            .dynamo
            .query()
            .table_name(&self.table)
            .key_condition_expression("pk = :p AND begins_with(sk, :l)")
            .expression_attribute_values(":p", text(format!("FLOW#{flow}")))
            .expression_attribute_values(":l", text("LOG#".to_owned()))
            .scan_index_forward(false)
            .consistent_read(true)
            .limit(300)
            .send()
            .await
            .map_err(|e| Fault::outside("reading the history")(e.into()))?;
        page.items.unwrap_or_default().iter().rev().map(items::body).collect()
    }

    /// Reads the lines of output after a sequence number (all, without one). These are all there
    /// are if they are fewer than 500.
    ///
    /// # Errors
    ///
    /// [`Fault::Outside`], worth a retry.
    pub async fn output(&self, of: &str, after: Option<u64>) -> Result<Vec<OutputLine>, Fault> {
        let mut from = after.map_or_else(|| " ".to_owned(), |seq| format!("{:012}", seq + 1));
        let mut lines: Vec<OutputLine> = Vec::new();
        loop {
            let read = self.range(format!("OUT#{of}"), from, "~".to_owned(), ROWS, "reading output");
            let (rows, goes_on) = read.await?;
            for row in &rows {
                lines.extend(lines_of(row)?);
            }
            let last = rows.last().and_then(|row| row.get("sk")?.as_s().ok());
            match last {
                // What comes after it: nothing that a place ends with is less.
                Some(last) if goes_on && lines.len() < ENOUGH => from = format!("{last} "),
                _ => break,
            }
        }
        // A row that was sent again may have begun or ended elsewhere.
        lines.retain(|line| after.is_none_or(|after| line.seq > after));
        lines.sort_by_key(|line| line.seq);
        lines.dedup_by_key(|line| line.seq);
        Ok(lines)
    }

    /// Reads the rows at these keys as they are now, at most a hundred, in no order. A key without
    /// a row has none.
    pub(crate) async fn items_at(&self, keys: Vec<Item>, what: &'static str) -> Result<Vec<Item>, Fault> {
        let failed = |e| Fault::outside(what)(e);
        let (mut left, mut found) = (keys, Vec::new());
        while !left.is_empty() {
            let wanted = KeysAndAttributes::builder().set_keys(Some(left)).consistent_read(true);
            let wanted = wanted.build().map_err(|e| failed(e.into()))?;
            let asked = self.dynamo.batch_get_item().request_items(&self.table, wanted);
            let got = asked.send().await.map_err(|e| failed(e.into()))?;
            let items = got.responses.and_then(|mut all| all.remove(&self.table));
            found.extend(items.unwrap_or_default());
            // Long rows do not all fit into one answer.
            let unread = got.unprocessed_keys.and_then(|mut all| all.remove(&self.table));
            left = unread.map(|unread| unread.keys).unwrap_or_default();
        }
        Ok(found)
    }

    pub(crate) async fn after(
        &self,
        pk: String,
        from: String,
        to: String,
        what: &'static str,
    ) -> Result<Vec<Item>, Fault> {
        let (mut items, _) = self.range(pk, from.clone(), to, 500, what).await?;
        // `BETWEEN` takes its ends in.
        items.retain(|item| item.get("sk").and_then(|sk| sk.as_s().ok()) != Some(&from));
        Ok(items)
    }

    /// Reads rows between two places, which are taken in, and whether there may be more.
    async fn range(
        &self,
        pk: String,
        from: String,
        to: String,
        most: i32,
        what: &'static str,
    ) -> Result<(Vec<Item>, bool), Fault> {
        let page = self
            .dynamo
            .query()
            .table_name(&self.table)
            .key_condition_expression("pk = :p AND sk BETWEEN :f AND :t")
            .expression_attribute_values(":p", text(pk))
            .expression_attribute_values(":f", text(from))
            .expression_attribute_values(":t", text(to))
            .consistent_read(true)
            .limit(most)
            .send()
            .await
            .map_err(|e| Fault::outside(what)(e.into()))?;
        let goes_on = page.last_evaluated_key.is_some();
        Ok((page.items.unwrap_or_default(), goes_on))
    }

    /// Sends a command on behalf of the one who asked for it.
    ///
    /// # Errors
    ///
    /// [`Fault::Outside`], worth a retry: the same id is the same wish.
    pub async fn command(&self, command: &Command) -> Result<(), Fault> {
        self.send_command(command).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_of_an_earlier_version_is_one_line_and_has_its_place_among_those_of_many() {
        let line = r#"{"seq":7,"at":1,"kind":"stdout","text":"seven"}"#;
        let row = |body: &str| Item::from([("body".to_owned(), text(body))]);
        let [one]: [OutputLine; 1] = lines_of(&row(line)).unwrap().try_into().unwrap();
        assert_eq!(
            lines_of(&row(&format!("[{line},{line}]"))).unwrap(),
            [one.clone(), one.clone()]
        );
        assert!(lines_of(&row("{}")).is_err());
        let places = [
            items::output_key("of", std::slice::from_ref(&one)),
            items::key("OUT#of".into(), format!("{:012}", 8)),
        ];
        let places = places.map(|key| key["sk"].as_s().unwrap().clone());
        assert!(format!("{:012}", 7) < places[0] && places[0] < places[1] && places[1] < format!("{:012}", 9));
    }
}
