//! The sessions of a user, and the users of a workspace.
//!
//! The list of users has a partition of its own. An index over it would have to be added to tables
//! that are there already.

use crate::{
    Aws,
    items::{self, Item, text},
};
use contract::{instance::InstanceRow, names, row::SessionRow};
use shell::Fault;

/// The most items of one call that reads some by their keys.
const MOST_OF_A_CALL: usize = 100;

impl Aws {
    /// Reads sessions of one user as they are now, in the order of their keys: those whose key
    /// begins with `prefix` and follows `after`, at most `most`.
    ///
    /// # Errors
    ///
    /// [`Fault::Outside`], worth a retry.
    pub async fn sessions_of(
        &self,
        (workspace, owner): (&str, &str),
        prefix: &str,
        after: &str,
        most: usize,
    ) -> Result<Vec<SessionRow>, Fault> {
        let from = format!("FLOW#{}", prefix.max(after));
        let (mut sessions, mut start) = (Vec::new(), None);
        while sessions.len() < most {
            let page = self
                .dynamo
                .query()
                .table_name(&self.table)
                .index_name(names::OWNER_INDEX)
                .key_condition_expression("#o = :o AND pk BETWEEN :f AND :t")
                .expression_attribute_names("#o", "owner")
                .expression_attribute_values(":o", text(items::owner_of(workspace, owner)))
                .expression_attribute_values(":f", text(&from))
                .expression_attribute_values(":t", text(format!("FLOW#{prefix}~")))
                .limit(MOST_OF_A_CALL as i32)
                .set_exclusive_start_key(start)
                .send()
                .await
                .map_err(|e| Fault::outside("listing sessions")(e.into()))?;
            let only_key = |item: Item| item.into_iter().filter(|(name, _)| name == "pk" || name == "sk");
            let mut keys: Vec<Item> = page
                .items
                .unwrap_or_default()
                .into_iter()
                .map(|item| only_key(item).collect())
                .collect();
            // `BETWEEN` takes its ends in.
            keys.retain(|key: &Item| key.get("pk") != Some(&text(format!("FLOW#{after}"))));
            keys.truncate(most - sessions.len());
            sessions.extend(self.sessions_at(keys).await?);
            start = page.last_evaluated_key;
            if start.is_none() {
                break;
            }
        }
        Ok(sessions)
    }

    async fn sessions_at(&self, keys: Vec<Item>) -> Result<Vec<SessionRow>, Fault> {
        let items = self.items_at(keys, "listing sessions").await?;
        let mut sessions = items.iter().map(items::session_of).collect::<Result<Vec<_>, _>>()?;
        sessions.sort_by(|a, b| a.session.flow.cmp(&b.session.flow));
        Ok(sessions)
    }

    /// Reads the names of users of a workspace who have sessions, or had some: those that follow
    /// `after`, a page of them.
    ///
    /// # Errors
    ///
    /// [`Fault::Outside`], worth a retry.
    pub async fn users_after(&self, workspace: &str, after: &str) -> Result<Vec<String>, Fault> {
        // No name begins with a space below any other, and none is empty.
        let from = if after.is_empty() { " " } else { after };
        let (from, to) = (from.to_owned(), char::MAX.to_string());
        let items = self
            .after(items::users_of(workspace), from, to, "listing users")
            .await?;
        let name = |item: &Item| item.get("sk").and_then(|sk| sk.as_s().ok()).cloned();
        Ok(items.iter().filter_map(name).collect())
    }

    /// Reads the compute instances of a user, by name.
    ///
    /// # Errors
    ///
    /// [`Fault::Outside`], worth a retry.
    pub async fn instances_of(&self, workspace: &str, owner: &str) -> Result<Vec<InstanceRow>, Fault> {
        let partition = items::instances_of(workspace, owner);
        let (from, to) = (" ".to_owned(), char::MAX.to_string());
        let items = self.after(partition, from, to, "listing compute instances").await?;
        items.iter().map(items::body).collect()
    }

    /// Writes a user into the list of those of a workspace. Before their first session is written,
    /// so that no crash leaves a session that the workspace's owners do not see.
    pub(crate) async fn list_user(&self, workspace: &str, owner: &str) -> Result<(), Fault> {
        let item = items::key(items::users_of(workspace), owner);
        let put = self.dynamo.put_item().table_name(&self.table).set_item(Some(item));
        put.send()
            .await
            .map_err(|e| Fault::outside("listing a user")(e.into()))?;
        Ok(())
    }
}
