//! Permissions, by the roles that a workspace has given.
//!
//! The table is read for each command and each request, and no answer of it is kept: a role that is
//! revoked is gone at once, also for tokens that were given before.

use crate::{Fault, Ports, actions::action_of, workspace};
use contract::{
    FlowRef, Principal,
    command::{Command, Wish},
};
use lifecycle::{
    Failure,
    access::{Action, denied, may},
};
use std::collections::BTreeSet;

/// Somebody, as their workspace knows them.
#[derive(Clone, Debug)]
pub struct Known {
    /// With the roles that count now.
    pub principal: Principal,
    /// The identities that they may have sessions work with, besides what a role allows.
    identities: BTreeSet<String>,
}

impl Known {
    /// Looks up the roles of somebody whom the transport has proved to be `principal`.
    ///
    /// # Errors
    ///
    /// As [`Ports`].
    pub async fn look_up(ports: &impl Ports, principal: Principal) -> Result<Self, Fault> {
        let row = match &principal {
            Principal::User { name, workspace, .. } => ports.load_roles(workspace, name).await?,
            Principal::Sweep => None,
        };
        Ok(match (principal, row) {
            (Principal::User { name, workspace, roles }, Some(row)) => Self {
                principal: Principal::User {
                    name,
                    workspace,
                    roles: row.over(&roles),
                },
                identities: row.identities,
            },
            (principal, _) => Self {
                principal,
                identities: BTreeSet::new(),
            },
        })
    }

    /// The failure of a command that they may not send.
    ///
    /// # Errors
    ///
    /// As [`Ports`].
    pub async fn refuse(&self, ports: &impl Ports, command: &Command) -> Result<Option<Failure>, Fault> {
        let FlowRef { workspace, owner, .. } = &command.flow;
        let (principal, action) = (&self.principal, action_of(&command.wish));
        if !may(principal, action, workspace, owner) {
            return Ok(Some(denied(principal, action, workspace, owner)));
        }
        let uses_identity = action == Action::Use && command.wish.run_to_change().is_none();
        if !uses_identity || may(principal, Action::AssignIdentity, workspace, "") {
            return Ok(None);
        }
        // An identity is assigned anew with each use: that of the session counts like one that is
        // named.
        let settings = command.wish.settings();
        let named = match &command.wish {
            Wish::CreateInstance { identity, .. } | Wish::UpdateInstance { identity, .. } => identity.clone(),
            _ => settings.and_then(|settings| settings.identity.clone()),
        };
        let identity = match named {
            Some(named) => Some(named),
            // Another compute resource has another identity.
            None if settings.is_some_and(|settings| settings.compute.is_some()) => None,
            None => match ports.load_session(&command.flow.key()).await? {
                Some(row) => row.session.settings.identity.value,
                None => None,
            },
        };
        match identity {
            Some(named) => self.refuse_identity(ports, &named, workspace).await,
            None => Ok(None),
        }
    }

    /// The failure of a session's use of the identity that `named` names, if they may not use it.
    ///
    /// # Errors
    ///
    /// As [`Ports`].
    pub(crate) async fn refuse_identity(
        &self,
        ports: &impl Ports,
        named: &str,
        workspace: &str,
    ) -> Result<Option<Failure>, Fault> {
        let principal = &self.principal;
        if may(principal, Action::AssignIdentity, workspace, "") {
            return Ok(None);
        }
        // The role is of an identity, whichever of its names was typed.
        let of = workspace::settings_of(ports, workspace).await?;
        let id = match workspace::identity(named, &of, workspace) {
            Ok(id) => id,
            Err(failure) => return Ok(Some(failure)),
        };
        let has = |role: &String| workspace::identity(role, &of, workspace).is_ok_and(|role| role == id);
        let refused = Some(id.clone()).filter(|_| !self.identities.iter().any(has));
        Ok(refused.map(|identity| denied(principal, Action::AssignIdentity, workspace, &identity)))
    }
}
