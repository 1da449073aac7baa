//! Rows that a workspace's owners write: settings, rules of webhooks, and roles.

use crate::{
    Aws,
    items::{self, Item, json, number},
    ports::is_written,
};
use contract::{
    people::RoleRow,
    webhook::{DeliveryRow, WebhooksRow},
    workspace::WorkspaceRow,
};
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
        self.put_next(item, row.revision, "saving webhooks").await
    }

    /// Writes the roles of a user, if they are still at the revision before.
    ///
    /// # Errors
    ///
    /// [`Fault::Conflict`] when somebody else was faster; [`Fault::Outside`], worth a retry.
    pub async fn save_roles(&self, row: &RoleRow) -> Result<(), Fault> {
        let mut item = items::role_key(&row.workspace, &row.user);
        item.insert("body".to_owned(), json(row));
        self.put_next(item, row.revision, "saving roles").await
    }

    /// Writes the settings of a workspace, if they are still at the revision before.
    ///
    /// # Errors
    ///
    /// [`Fault::Conflict`] when somebody else was faster; [`Fault::Outside`], worth a retry.
    pub async fn save_workspace(&self, row: &WorkspaceRow) -> Result<(), Fault> {
        let mut item = items::workspace_key(&row.workspace);
        item.insert("body".to_owned(), json(row));
        self.put_next(item, row.revision, "saving the settings of a workspace")
            .await
    }

    /// Reads the roles of a workspace, by user: those that follow `after`, a page of them.
    ///
    /// # Errors
    ///
    /// [`Fault::Outside`], worth a retry.
    pub async fn roles_after(&self, workspace: &str, after: &str) -> Result<Vec<RoleRow>, Fault> {
        let (from, to) = (format!("ROLE#{after}"), format!("ROLE#{}", char::MAX));
        let items = self
            .after(format!("WORKSPACE#{workspace}"), from, to, "listing roles")
            .await?;
        items.iter().map(items::body).collect()
    }

    /// Puts an item of this revision, if the stored one has the revision before.
    async fn put_next(&self, mut item: Item, revision: u64, what: &'static str) -> Result<(), Fault> {
        item.insert("revision".to_owned(), number(revision));
        let read = revision.saturating_sub(1);
        let written = if read == 0 {
            self.put_new(item, what).await?
        } else {
            let put = self
                .dynamo
                .put_item()
                .table_name(&self.table)
                .set_item(Some(item))
                .condition_expression("revision = :r")
                .expression_attribute_values(":r", number(read));
            is_written(put.send().await, what)?
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
