//! The settings of a session, and the origin of each.

use crate::{Millis, network::Network};

/// Where a setting comes from. Each counts more than those after it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(feature = "wire", derive(serde::Serialize, serde::Deserialize, schemars::JsonSchema))]
#[cfg_attr(feature = "wire", serde(rename_all = "kebab-case"))]
pub enum Origin {
    /// The command names it.
    Command,
    /// The run's own file, `run.yml`.
    RunFile,
    /// The flow's own file, such as `flow.dag.yaml`.
    FlowFile,
    /// The workspace's settings.
    Workspace,
    /// Nobody named it.
    #[default]
    Default,
}

#[cfg(feature = "wire")]
impl Origin {
    fn is_default(&self) -> bool {
        *self == Self::Default
    }
}

/// Where each setting comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(feature = "wire", derive(serde::Serialize, serde::Deserialize, schemars::JsonSchema))]
#[cfg_attr(feature = "wire", serde(default))]
pub struct Origins {
    pub folder: Origin,
    pub size: Origin,
    pub identity: Origin,
    pub image: Origin,
    pub idle: Origin,
    #[cfg_attr(feature = "wire", serde(skip_serializing_if = "Origin::is_default"))]
    pub network: Origin,
    #[cfg_attr(feature = "wire", serde(skip_serializing_if = "Origin::is_default"))]
    pub allow_hosts: Origin,
    #[cfg_attr(feature = "wire", serde(skip_serializing_if = "Origin::is_default"))]
    pub compute: Origin,
}

#[cfg(feature = "wire")]
impl Origins {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// A base image, and who named it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(feature = "wire", derive(serde::Serialize, serde::Deserialize, schemars::JsonSchema))]
pub struct Image {
    pub name: String,
    pub origin: Origin,
}

/// The settings of a session, as its user asked for them.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(feature = "wire", derive(serde::Serialize, serde::Deserialize, schemars::JsonSchema))]
pub struct Settings {
    /// Where the flow folder is: an absolute path on one machine, a snapshot's address on AWS.
    pub folder: String,
    /// The VM size.
    pub size: String,
    /// The user-assigned identity; `None` is the user's own.
    pub identity: Option<String>,
    /// The base image that the command names; `None` leaves it to the flow, and then to the default.
    pub image: Option<String>,
    /// How long the session may be idle, in milliseconds.
    pub idle: Millis,
    /// Which network it has.
    #[cfg_attr(feature = "wire", serde(default, skip_serializing_if = "Network::is_default"))]
    pub network: Network,
    /// The hosts that it may reach whatever the network is: see [`crate::network::Host`].
    #[cfg_attr(feature = "wire", serde(default, skip_serializing_if = "Vec::is_empty"))]
    pub allow_hosts: Vec<String>,
    /// The compute instance that the session is on, whose size and identity it has; none is serverless compute.
    #[cfg_attr(feature = "wire", serde(default, skip_serializing_if = "Option::is_none"))]
    pub compute: Option<String>,
    #[cfg_attr(feature = "wire", serde(default, skip_serializing_if = "Origins::is_default"))]
    pub origins: Origins,
}

impl Settings {
    /// These settings where somebody named them, and those of `below` for the rest.
    pub fn over(&self, below: &Self) -> Self {
        let mut all = below.clone();
        macro_rules! named {
            ($($setting:ident),*) => {$(
                if self.origins.$setting != Origin::Default {
                    all.$setting = self.$setting.clone();
                    all.origins.$setting = self.origins.$setting;
                }
            )*};
        }
        named!(folder, size, identity, image, idle, network, allow_hosts, compute);
        all
    }

    /// Whether a session made of one of them is as good as one made of the other, whoever named them.
    pub fn is_same(&self, other: &Self) -> bool {
        let origins = other.origins;
        Self {
            origins,
            ..self.clone()
        } == *other
    }

    /// Whether both need the same compute resource.
    pub(super) fn is_on_same_compute(&self, other: &Self) -> bool {
        (&self.size, &self.identity, &self.compute) == (&other.size, &other.identity, &other.compute)
    }
}
