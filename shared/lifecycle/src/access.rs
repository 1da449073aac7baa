//! Who may do what with whose session.

/// A role in a workspace.
///
/// # Source
///
/// "For users of the compute session, assign the `AzureML Data Scientist` role in the workspace" (seed, *Permissions and roles*).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(feature = "wire", derive(serde::Serialize, serde::Deserialize, schemars::JsonSchema))]
#[cfg_attr(feature = "wire", serde(rename_all = "kebab-case"))]
pub enum Role {
    /// May grant roles, see every session of the workspace and stop it.
    Owner,
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

/// What somebody wants to do with a session.
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
    /// Look after a promise already made: deadlines, idleness, unsent effects.
    Sweep,
}

/// Whether `principal` may do `action` with the session of a flow that belongs to `owner` in `workspace`.
///
/// # Source
///
/// "A compute resource can only be used by a single user. It acts as a private development box for that user" (seed, *Relationship*).
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
                    // Who may give roles to others may let others' events do what the rule's maker may do.
                    Action::SetRules => roles.contains(&Role::Owner),
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
        let all = [Action::Read, Action::Stop, Action::Use, Action::SetRules, Action::Sweep];
        let allowed = |p: &Principal| {
            all.iter()
                .filter(|a| may(p, **a, "ws", "alice"))
                .copied()
                .collect::<Vec<_>>()
        };
        assert_eq!(
            allowed(&user("alice", "ws", &[Role::DataScientist])),
            [Action::Read, Action::Stop, Action::Use]
        );
        assert_eq!(allowed(&user("alice", "ws", &[])), []);
        assert_eq!(
            allowed(&user("alice", "other", &[Role::DataScientist, Role::Owner])),
            []
        );
        assert_eq!(allowed(&user("bob", "ws", &[Role::DataScientist])), []);
        assert_eq!(
            allowed(&user("bob", "ws", &[Role::Owner])),
            [Action::Read, Action::Stop, Action::SetRules]
        );
        assert_eq!(allowed(&Principal::Sweep), [Action::Sweep]);
    }
}
