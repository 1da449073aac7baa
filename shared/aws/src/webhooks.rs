//! What the webhooks write.

use crate::{
    Aws,
    items::{self, Item, json, number},
    ports::is_written,
};
use contract::webhook::{DeliveryRow, WebhooksRow};
use shell::Fault;

impl Aws {
    /// Writes a workspace's rules, if they are still at the revision before.
    ///
    /// # Errors
    ///
    /// [`Fault::Conflict`] when somebody else was faster; [`Fault::Outside`], worth a retry.
    pub async fn save_webhooks(&self, row: &WebhooksRow) -> Result<(), Fault> {
        let mut item = items::webhooks_key(&row.workspace);
        item.insert("body".to_owned(), json(row));
        item.insert("revision".to_owned(), number(row.revision));
        let read = row.revision.saturating_sub(1);
        let written = if read == 0 {
            self.put_new(item, "saving webhooks").await?
        } else {
            let put = self
                .dynamo
                .put_item()
                .table_name(&self.table)
                .set_item(Some(item))
                .condition_expression("revision = :r")
                .expression_attribute_values(":r", number(read));
            is_written(put.send().await, "saving webhooks")?
        };
        if written { Ok(()) } else { Err(Fault::Conflict) }
    }

    /// Writes down that a delivery is taken, and gives back how it was taken before, if it was.
    ///
    /// * `digest`: of what the delivery's signature covers.
    ///
    /// # Errors
    ///
    /// [`Fault::Outside`], worth a retry.
    pub async fn take_delivery(
        &self,
        workspace: &str,
        sender: &str,
        digest: &str,
        row: &DeliveryRow,
    ) -> Result<Option<DeliveryRow>, Fault> {
        let key = items::delivery_key(workspace, sender, digest);
        let mut item = key.clone();
        item.insert("body".to_owned(), json(row));
        if self.put_new(item, "taking a delivery").await? {
            return Ok(None);
        }
        match self.get(key).await? {
            Some(item) => items::body(&item).map(Some),
            None => Err(Fault::Conflict),
        }
    }

    async fn put_new(&self, item: Item, what: &'static str) -> Result<bool, Fault> {
        let put = self.dynamo.put_item().table_name(&self.table).set_item(Some(item));
        is_written(put.condition_expression("attribute_not_exists(pk)").send().await, what)
    }
}
