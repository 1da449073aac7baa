//! The settings of a session: one table, and what follows from it.

use crate::{Millis, deadlines, network::Network, size};

/// The origin of a setting. Each counts more than those after it.
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
    /// The default: it was not named.
    #[default]
    Default,
}

/// A value, and who named it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(feature = "wire", derive(serde::Serialize, serde::Deserialize, schemars::JsonSchema))]
pub struct Named<T> {
    // The one value that rows hold on its own is the name of a base image, so they call it that.
    #[cfg_attr(feature = "wire", serde(rename = "name"))]
    pub value: T,
    pub origin: Origin,
}

impl<T> Named<T> {
    pub fn new(value: T, origin: Origin) -> Self {
        Self { value, origin }
    }

    /// Whether anybody named it.
    pub fn is_named(&self) -> bool {
        self.origin != Origin::Default
    }

    /// This value if anybody named it, and `below` otherwise.
    pub fn over(self, below: Self) -> Self {
        if self.is_named() { self } else { below }
    }
}

/// A default value.
impl<T> From<T> for Named<T> {
    fn from(value: T) -> Self {
        Self::new(value, Origin::Default)
    }
}

/// The time from which a change of a setting counts in a session that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counts {
    AtOnce,
    /// From the next reset on.
    AtReset,
    /// The session is made anew, on another compute resource.
    OnNewCompute,
}

/// The table of settings, given to the macro `$then`. The folder is not a setting: it is the
/// session's subject.
///
/// Its columns: the variant of [`Setting`]; the field of [`Settings`] and its type; whether rows
/// leave out the default of its type, as those from before the setting do. Then: the default, which
/// is then that of its type; its name for people; when a change counts.
#[macro_export]
macro_rules! with_settings {
    ($then:ident) => {
        $then! {
            /// The compute instance that the session is on, whose size and identity it has; none is
            /// serverless compute.
            Compute, compute: Option<String>, true, None, "compute resource", OnNewCompute;
            /// The VM size.
            Size, size: String, false, size::WHOLE_MACHINE.to_owned(), "VM size", OnNewCompute;
            /// The user-assigned identity; `None` is the user's own.
            Identity, identity: Option<String>, false, None, "identity", OnNewCompute;
            /// The base image that the command names; `None` leaves it to the flow, and then to the
            /// default.
            Image, image: Option<String>, false, None, "base image", AtReset;
            /// The longest time that the session may be idle, in milliseconds.
            Idle, idle: Millis, false, deadlines::IDLE_DEFAULT, "idle time", AtOnce;
            /// Which network it has.
            Network, network: Network, true, Network::default(), "network", AtOnce;
            /// The hosts that it may reach whatever the network is: see [`crate::network::Host`].
            AllowHosts, allow_hosts: Vec<String>, true, Vec::new(), "list of allowed hosts", AtOnce;
        }
    };
}

macro_rules! define {
    ($($(#[$doc:meta])* $variant:ident, $name:ident: $type:ty, $is_left_out:tt, $default:expr, $what:literal, $counts:ident;)*) => {
        /// The name of a setting.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[cfg_attr(feature = "wire", derive(serde::Serialize, serde::Deserialize, schemars::JsonSchema))]
        #[cfg_attr(feature = "wire", serde(rename_all = "kebab-case"))]
        pub enum Setting {
            $($variant,)*
        }

        impl Setting {
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// Its name for people.
            pub fn what(self) -> &'static str {
                match self {
                    $(Self::$variant => $what,)*
                }
            }

            /// The time from which a change of it counts.
            pub fn counts(self) -> Counts {
                match self {
                    $(Self::$variant => Counts::$counts,)*
                }
            }
        }

        /// The settings of a session, as its user asked for them.
        #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[cfg_attr(feature = "wire", derive(serde::Serialize, serde::Deserialize, schemars::JsonSchema))]
        #[cfg_attr(feature = "wire", serde(from = "wire::Settings", into = "wire::Settings"))]
        pub struct Settings {
            /// The flow folder: an absolute path on one machine, a snapshot's address on AWS.
            pub folder: Named<String>,
            /// The reason for the choice of the VM size, if none was named: see
            /// [`crate::size::choose`]. Empty otherwise.
            pub choice: String,
            $($(#[$doc])* pub $name: Named<$type>,)*
        }

        impl Settings {
            /// The default of every setting.
            pub fn new(folder: impl Into<String>) -> Self {
                Self {
                    folder: folder.into().into(),
                    choice: String::new(),
                    $($name: Named::from($default),)*
                }
            }

            /// These settings where somebody named them, and those of `below` for the rest.
            pub fn over(&self, below: &Self) -> Self {
                Self {
                    folder: self.folder.clone().over(below.folder.clone()),
                    choice: if self.size.is_named() { &self.choice } else { &below.choice }.clone(),
                    $($name: self.$name.clone().over(below.$name.clone()),)*
                }
            }

            /// Whether somebody named the folder, and nothing else.
            pub(super) fn names_folder_alone(&self) -> bool {
                self.folder.is_named() $(&& !self.$name.is_named())*
            }

            /// The settings whose values differ, of whatever origin.
            pub fn differences(&self, other: &Self) -> impl Iterator<Item = Setting> {
                [$((self.$name.value != other.$name.value).then_some(Setting::$variant)),*].into_iter().flatten()
            }

            /// The settings that a command or a file of its user names here, and whose values
            /// differ.
            pub(super) fn named_otherwise(&self, has: &Self) -> Vec<Setting> {
                let named = |origin: Origin| !matches!(origin, Origin::Default | Origin::Workspace);
                let all = [$((
                    named(self.$name.origin) && self.$name.value != has.$name.value
                ).then_some(Setting::$variant)),*];
                all.into_iter().flatten().collect()
            }

            /// Takes the values of `other` where a change counts then, and leaves who named them.
            pub(super) fn take_values(&mut self, counts: Counts, other: &Self) {
                $(if Setting::$variant.counts() == counts {
                    self.$name.value.clone_from(&other.$name.value);
                })*
                if counts == Setting::Size.counts() {
                    self.choice.clone_from(&other.choice);
                }
            }
        }

        /// The form of [`Settings`](super::Settings) in rows and messages: the values, and beside
        /// them who named each.
        #[cfg(feature = "wire")]
        mod wire {
            use super::{Millis, Named, Network, Origin};
            use schemars::JsonSchema;
            use serde::{Deserialize, Serialize};

            /// The settings of a session, as its user asked for them.
            #[derive(Clone, Serialize, Deserialize, JsonSchema)]
            pub(super) struct Settings {
                /// The flow folder: an absolute path on one machine, a snapshot's address on AWS.
                folder: String,
                $(
                    $(#[$doc])*
                    #[cfg_attr($is_left_out, serde(default, skip_serializing_if = "is_default"))]
                    $name: $type,
                )*
                /// The reason for the choice of the VM size, if none was named.
                #[serde(default, skip_serializing_if = "is_default")]
                choice: String,
                #[serde(default, skip_serializing_if = "is_default")]
                origins: Origins,
            }

            /// The origin of each setting.
            #[derive(Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
            #[serde(default)]
            struct Origins {
                folder: Origin,
                $(
                    #[cfg_attr($is_left_out, serde(skip_serializing_if = "is_default"))]
                    $name: Origin,
                )*
            }

            fn is_default<T: Default + PartialEq>(value: &T) -> bool {
                *value == T::default()
            }

            impl From<Settings> for super::Settings {
                fn from(form: Settings) -> Self {
                    Self {
                        folder: Named::new(form.folder, form.origins.folder),
                        choice: form.choice,
                        $($name: Named::new(form.$name, form.origins.$name),)*
                    }
                }
            }

            impl From<super::Settings> for Settings {
                fn from(settings: super::Settings) -> Self {
                    Self {
                        origins: Origins {
                            folder: settings.folder.origin,
                            $($name: settings.$name.origin,)*
                        },
                        folder: settings.folder.value,
                        choice: settings.choice,
                        $($name: settings.$name.value,)*
                    }
                }
            }
        }
    };
}

with_settings!(define);

impl Settings {
    /// Whether a session made of one of them is as good as one made of the other, whoever named
    /// them.
    pub fn is_same(&self, other: &Self) -> bool {
        self.folder.value == other.folder.value && self.differences(other).next().is_none()
    }

    /// The base image of a session with these settings: the first of the command's, the flow
    /// file's, the workspace's and the default.
    ///
    /// * `of_flow`: the flow file's, or else the default for what the flow folder holds.
    ///
    /// # Errors
    ///
    /// Those of `of_flow`, which is asked only if the command names none.
    pub fn base_image<E>(
        &self,
        of_workspace: Option<&String>,
        of_flow: impl FnOnce() -> Result<Named<String>, E>,
    ) -> Result<Named<String>, E> {
        if let Some(name) = &self.image.value {
            return Ok(Named::new(name.clone(), self.image.origin));
        }
        let of_workspace = of_workspace.map(|name| Named::new(name.clone(), Origin::Workspace));
        let of_flow = of_flow()?;
        Ok(match of_workspace {
            Some(of_workspace) => of_flow.over(of_workspace),
            None => of_flow,
        })
    }

    /// Whether both need the same compute resource.
    pub(super) fn is_on_same_compute(&self, other: &Self) -> bool {
        self.differences(other)
            .all(|setting| setting.counts() != Counts::OnNewCompute)
    }
}
