//! The actions that a principal may take, and on whose session.

use crate::{Code, Failure};

/// A role in a workspace.
///
/// # Source
///
/// "For users of the compute session, assign the `AzureML Data Scientist` role in the workspace"
/// (the specification, *Permissions and roles*).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(feature = "wire", derive(serde::Serialize, serde::Deserialize, schemars::JsonSchema))]
#[cfg_attr(feature = "wire", serde(rename_all = "kebab-case"))]
pub enum Role {
    /// May grant roles, see every session of the workspace and stop it.
    Owner,
    /// May grant roles, and nothing else.
    ///
    /// # Source
    ///
    /// "To assign roles, you need `owner` or `Microsoft.Authorization/roleAssignments/write`
    /// permission on the resource" (the specification, *Permissions and roles*).
    RoleAdministrator,
    /// May have sessions: start, install into, change, reset, stop and run in their own.
    DataScientist,
}

/// Somebody who asks for something, as the transport has proved them to be.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "wire", derive(serde::Serialize, serde::Deserialize, schemars::JsonSchema))]
pub enum Principal {
    /// A user of one workspace, with the roles they have there.
    #[cfg_attr(feature = "wire", serde(rename = "user"))]
    User {
        name: String,
        workspace: String,
        roles: Vec<Role>,
    },
    /// This system's own sweep. It keeps promises that were already made, and starts nothing.
    #[cfg_attr(feature = "wire", serde(rename = "sweep"))]
    Sweep,
}

impl Principal {
    /// The name that the event log shows.
    pub fn name(&self) -> &str {
        match self {
            Self::User { name, .. } => name,
            Self::Sweep => "sweep",
        }
    }
}

/// An action on a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// See it, its history, its output.
    Read,
    /// End it.
    Stop,
    /// Start it, run in it, change it.
    Use,
    /// Say what the workspace does when somebody outside says that something happened.
    SetRules,
    /// See the workspace's settings.
    ReadWorkspace,
    /// Change the workspace's settings.
    WriteWorkspace,
    /// See and change who has which role in the workspace.
    AssignRoles,
    /// Have a session work with a user-assigned identity.
    AssignIdentity,
    /// Look after a promise already made: deadlines, idleness, unsent effects.
    Sweep,
}

impl Action {
    /// The permission that it needs, by the name that a refusal says.
    pub fn permission(self) -> &'static str {
        match self {
            Self::Read => "sessions/read",
            Self::Stop => "sessions/stop",
            Self::Use => "sessions/use",
            Self::SetRules => "webhooks/write",
            Self::ReadWorkspace => "workspace/read",
            Self::WriteWorkspace => "workspace/write",
            Self::AssignRoles => "roles/write",
            Self::AssignIdentity => "identities/assign",
            Self::Sweep => "sessions/sweep",
        }
    }
}

/// Says which permission `principal` lacks, and who has it.
///
/// * `owner`: whose session it is; the identity that is to be assigned; empty where the action is
///   on a workspace.
pub fn denied(principal: &Principal, action: Action, workspace: &str, owner: &str) -> Failure {
    let (name, permission) = (principal.name(), action.permission());
    let about = match (action, owner) {
        (_, "") => String::new(),
        (Action::AssignIdentity, identity) => format!(" for the identity {identity}"),
        (_, owner) => format!(" for the sessions of {owner}"),
    };
    let lacks = format!("{name} lacks the permission {permission}{about} in the workspace {workspace}.");
    let who = match (action, owner) {
        (Action::Sweep, _) => "No role has it: this system alone does that.".to_owned(),
        (Action::ReadWorkspace, _) => "Every role of the workspace has it.".to_owned(),
        (Action::AssignRoles, _) => "The roles owner and role-administrator have it.".to_owned(),
        (Action::AssignIdentity, _) => {
            "The role owner has it, and managed-identity-operator has it for one identity.".to_owned()
        }
        (Action::Use, owner) => format!("{owner} alone has it, with the role data-scientist."),
        (_, "") => "The role owner has it.".to_owned(),
        (_, owner) => format!("The role owner has it, and {owner} with the role data-scientist."),
    };
    let when = "A new role counts from the next command on, and one that a token carries from the next token on.";
    Failure::new(Code::AccessDenied, format!("{lacks} {who} {when}"))
}

/// Whether `principal` may do `action` with the session of a flow that belongs to `owner` in
/// `workspace`.
///
/// # Source
///
/// "A compute resource can only be used by a single user. It acts as a private development box for
/// that user" (the specification, *Relationship*).
pub fn may(principal: &Principal, action: Action, workspace: &str, owner: &str) -> bool {
    match principal {
        Principal::Sweep => action == Action::Sweep,
        Principal::User {
            name,
            workspace: theirs,
            roles,
        } => {
            theirs == workspace
                && match action {
                    Action::Sweep => false,
                    // Who may give roles to others may let others' events do what the rule's maker
                    // may do.
                    Action::ReadWorkspace => !roles.is_empty(),
                    Action::SetRules | Action::AssignIdentity | Action::WriteWorkspace => roles.contains(&Role::Owner),
                    Action::AssignRoles => roles
                        .iter()
                        .any(|role| matches!(role, Role::Owner | Role::RoleAdministrator)),
                    Action::Use => name == owner && roles.contains(&Role::DataScientist),
                    Action::Read | Action::Stop => {
                        name == owner && roles.contains(&Role::DataScientist) || roles.contains(&Role::Owner)
                    }
                }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(name: &str, workspace: &str, roles: &[Role]) -> Principal {
        Principal::User {
            name: name.into(),
            workspace: workspace.into(),
            roles: roles.to_vec(),
        }
    }

    #[test]
    fn only_the_owner_of_a_flow_uses_its_session_and_only_with_the_role() {
        let all = [
            Action::Read,
            Action::Stop,
            Action::Use,
            Action::SetRules,
            Action::ReadWorkspace,
            Action::WriteWorkspace,
            Action::AssignRoles,
            Action::AssignIdentity,
            Action::Sweep,
        ];
        let allowed = |p: &Principal| {
            all.iter()
                .filter(|a| may(p, **a, "ws", "alice"))
                .copied()
                .collect::<Vec<_>>()
        };
        assert_eq!(
            allowed(&user("alice", "ws", &[Role::DataScientist])),
            [Action::Read, Action::Stop, Action::Use, Action::ReadWorkspace]
        );
        assert_eq!(allowed(&user("alice", "ws", &[])), []);
        assert_eq!(
            allowed(&user("alice", "other", &[Role::DataScientist, Role::Owner])),
            []
        );
        assert_eq!(
            allowed(&user("bob", "ws", &[Role::DataScientist])),
            [Action::ReadWorkspace]
        );
        assert_eq!(
            allowed(&user("bob", "ws", &[Role::Owner])),
            [
                Action::Read,
                Action::Stop,
                Action::SetRules,
                Action::ReadWorkspace,
                Action::WriteWorkspace,
                Action::AssignRoles,
                Action::AssignIdentity
            ]
        );
        assert_eq!(
            allowed(&user("bob", "ws", &[Role::RoleAdministrator])),
            [Action::ReadWorkspace, Action::AssignRoles]
        );
        assert_eq!(allowed(&Principal::Sweep), [Action::Sweep]);
    }
}
