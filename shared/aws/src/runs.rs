//! A user's runs: the list, and what is changed of one that is there.

use crate::{
    Aws,
    items::{self, Item, number, text},
    ports::is_written,
};
use aws_sdk_dynamodb::types::{AttributeValue, DeleteRequest, WriteRequest};
use contract::{
    http::RunChange,
    row::{NAME_KEPT, RunRow},
};
use shell::{Fault, Ports};

/// The most items of one call that reads or removes some.
const MOST_OF_A_CALL: usize = 25;

impl Aws {
    /// Reads a page of a user's runs, newest first, each with its place, which the next page is
    /// asked for with.
    ///
    /// # Errors
    ///
    /// [`Fault::Outside`], worth a retry.
    pub async fn runs_of(
        &self,
        workspace: &str,
        owner: &str,
        after: Option<&str>,
    ) -> Result<Vec<(String, RunRow)>, Fault> {
        let page = self
            .dynamo
            .query()
            .table_name(&self.table)
            .key_condition_expression("pk = :p AND sk < :a")
            .expression_attribute_values(":p", text(items::runs_of(workspace, owner)))
            .expression_attribute_values(":a", text(after.unwrap_or("~")))
            .scan_index_forward(false)
            .consistent_read(true)
            .limit(MOST_OF_A_CALL as i32)
            .send()
            .await
            .map_err(|e| Fault::outside("listing runs")(e.into()))?;
        let place = |item: &Item| item.get("sk").and_then(|sk| sk.as_s().ok()).cloned();
        let places: Vec<String> = page.items.unwrap_or_default().iter().filter_map(place).collect();
        let id = |place: &str| place.split_once('#').map(|(_, id)| id.to_owned()).unwrap_or_default();
        let keys = places.iter().map(|place| items::run_key(&id(place))).collect();
        let items = self.items_at(keys, "listing runs").await?;
        let rows = items.iter().map(items::run_of).collect::<Result<Vec<_>, _>>()?;
        let row = |place: String| {
            let at = rows.iter().position(|row| row.id == id(&place))?;
            Some((place, rows[at].clone()))
        };
        Ok(places.into_iter().filter_map(row).collect())
    }

    /// Changes what people call a run, and whether lists show it.
    ///
    /// # Errors
    ///
    /// [`Fault::Outside`], worth a retry.
    pub(crate) async fn write_run_change(&self, id: &str, change: &RunChange) -> Result<(), Fault> {
        let mut update = self
            .dynamo
            .update_item()
            .table_name(&self.table)
            .set_key(Some(items::run_key(id)));
        let mut sets = Vec::new();
        if let Some(name) = &change.display_name {
            sets.push("display_name = :n");
            update = update.expression_attribute_values(":n", text(name));
        }
        if let Some(archived) = change.archived {
            sets.push("archived = :a");
            update = update.expression_attribute_values(":a", AttributeValue::Bool(archived));
        }
        if sets.is_empty() {
            return Ok(());
        }
        let updated = update
            .update_expression(format!("SET {}", sets.join(", ")))
            .condition_expression("attribute_exists(pk)")
            .send()
            .await;
        is_written(updated, "changing a run").map(drop)
    }

    /// Removes a run that has ended: its output, its place in the list, and of its row all but the
    /// name, which expires.
    ///
    /// # Errors
    ///
    /// [`Fault::Outside`], worth a retry: what is gone already is no error.
    pub(crate) async fn remove_run(&self, row: &RunRow) -> Result<(), Fault> {
        loop {
            let (from, to) = (" ".to_owned(), "~".to_owned());
            let lines = self
                .after(format!("OUT#{}", row.id), from, to, "removing a run's output")
                .await?;
            if lines.is_empty() {
                break;
            }
            let key = |item: Item| {
                item.into_iter()
                    .filter(|(name, _)| name == "pk" || name == "sk")
                    .collect()
            };
            self.remove(&lines.into_iter().map(key).collect::<Vec<Item>>()).await?;
        }
        let bare = RunRow {
            wish: Default::default(),
            failure: None,
            also: Vec::new(),
            result: None,
            folder: None,
            warning: None,
            display_name: None,
            ..row.clone()
        };
        let now = self.now();
        let mut item = items::run_key(&row.id);
        item.insert("body".to_owned(), items::json(&bare));
        item.insert("deleted".to_owned(), number(now));
        item.insert("expires_at".to_owned(), number((now + NAME_KEPT) / 1000));
        let put = self.dynamo.put_item().table_name(&self.table).set_item(Some(item));
        put.send()
            .await
            .map_err(|e| Fault::outside("removing a run")(e.into()))?;
        match items::listed_run(row) {
            Some(place) => self.remove(&[place]).await,
            None => Ok(()),
        }
    }

    async fn remove(&self, keys: &[Item]) -> Result<(), Fault> {
        let failed = |e| Fault::outside("removing rows")(e);
        for page in keys.chunks(MOST_OF_A_CALL) {
            let mut left = Vec::new();
            for key in page {
                let delete = DeleteRequest::builder().set_key(Some(key.clone())).build();
                let delete = delete.map_err(|e| failed(e.into()))?;
                left.push(WriteRequest::builder().delete_request(delete).build());
            }
            while !left.is_empty() {
                let sent = self.dynamo.batch_write_item().request_items(&self.table, left);
                let sent = sent.send().await.map_err(|e| failed(e.into()))?;
                let unprocessed = sent.unprocessed_items.and_then(|mut all| all.remove(&self.table));
                left = unprocessed.unwrap_or_default();
            }
        }
        Ok(())
    }
}
