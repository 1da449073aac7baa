//! What the HTTP front reads.

use crate::{
    Aws,
    items::{self, Item, text},
};
use aws_sdk_dynamodb::types::KeysAndAttributes;
use contract::{agent::OutputLine, command::Command, row::LogRow};
use shell::{Fault, Ports};

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

    /// Reads the lines of output after a sequence number (all, without one), at most a few hundred.
    ///
    /// # Errors
    ///
    /// [`Fault::Outside`], worth a retry.
    pub async fn output(&self, of: &str, after: Option<u64>) -> Result<Vec<OutputLine>, Fault> {
        let from = after.map_or_else(|| " ".to_owned(), |seq| format!("{seq:012}"));
        self.after(format!("OUT#{of}"), from, "~".to_owned(), "reading output")
            .await?
            .iter()
            .map(items::body)
            .collect()
    }

    /// Reads the rows at these keys as they are now, at most a hundred, in no order. A key without a row has none.
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
        let page = self
            .dynamo
            .query()
            .table_name(&self.table)
            .key_condition_expression("pk = :p AND sk BETWEEN :f AND :t")
            .expression_attribute_values(":p", text(pk))
            .expression_attribute_values(":f", text(from.clone()))
            .expression_attribute_values(":t", text(to))
            .consistent_read(true)
            .limit(500)
            .send()
            .await
            .map_err(|e| Fault::outside(what)(e.into()))?;
        let mut items = page.items.unwrap_or_default();
        // `BETWEEN` takes its ends in.
        items.retain(|item| item.get("sk").and_then(|sk| sk.as_s().ok()) != Some(&from));
        Ok(items)
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
