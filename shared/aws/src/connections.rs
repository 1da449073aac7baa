//! Rows of connections, which have no secrets.

use crate::{
    Aws,
    items::{self, json},
};
use contract::connections::ConnectionRow;
use shell::Fault;

impl Aws {
    /// The connections of a user of a workspace, or of the workspace itself.
    ///
    /// # Errors
    ///
    /// [`Fault::Outside`], worth a retry.
    pub async fn connections_of(&self, workspace: &str, user: Option<&str>) -> Result<Vec<ConnectionRow>, Fault> {
        let (pk, from) = items::connections_of(workspace, user);
        let to = format!("{from}{}", char::MAX);
        let items = self.after(pk, from, to, "listing connections").await?;
        items.iter().map(items::body).collect()
    }

    /// Writes one, in place of one of its name.
    ///
    /// # Errors
    ///
    /// [`Fault::Outside`], worth a retry.
    pub async fn save_connection(&self, row: &ConnectionRow) -> Result<(), Fault> {
        let mut item = items::connection_key(row);
        item.insert("body".to_owned(), json(row));
        let put = self.dynamo.put_item().table_name(&self.table).set_item(Some(item));
        let done = put.send().await;
        done.map(|_| ())
            .map_err(|error| Fault::outside("saving a connection")(error.into()))
    }

    /// Deletes one. What is gone already is no error.
    ///
    /// # Errors
    ///
    /// [`Fault::Outside`], worth a retry.
    pub async fn forget_connection(&self, row: &ConnectionRow) -> Result<(), Fault> {
        let delete = self.dynamo.delete_item().table_name(&self.table);
        let done = delete.set_key(Some(items::connection_key(row))).send().await;
        done.map(|_| ())
            .map_err(|error| Fault::outside("deleting a connection")(error.into()))
    }
}
