//! The error codes: a stable name for each kind of error, as it stands in JSON, in logs and in a
//! state machine's `ErrorEquals`.
//!
//! [`codes!`] is the one table of them; `ERRORS.md` beside this crate's README is generated from
//! it.

use std::fmt;

/// Whether the same request may succeed later without a change of its own.
enum Again {
    /// The request fails until somebody changes what the code names.
    Final,
    /// The cause may pass.
    Retry,
}

/// The text of a code that this version does not have. [`Code::read`] alone makes it, so no code
/// has two forms.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Foreign(String);

/// Makes the enum from its table: variant, text, whether a retry is worth it, meaning, remedy.
macro_rules! codes {
    ($($name:ident = $text:literal, $again:ident, $meaning:literal, $remedy:literal;)*) => {
        /// The stable name of an error.
        #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Code {
            $(#[doc = $meaning] $name,)*
            /// A code of another system (Step Functions, Lambda) or of another version. Its text is
            /// kept as it came.
            Other(Foreign),
        }

        impl Code {
            /// Every code of this version, sorted by text.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// Reads a code from its text. A text that is none of this version's becomes
            /// [`Code::Other`].
            pub fn read(text: &str) -> Self {
                match text {
                    $($text => Self::$name,)*
                    _ => Self::Other(Foreign(text.to_owned())),
                }
            }

            /// Returns the text, such as `Install.Conflict`.
            pub fn as_str(&self) -> &str {
                match self {
                    $(Self::$name => $text,)*
                    Self::Other(Foreign(text)) => text,
                }
            }

            /// Returns the cause and the remedy, each as one sentence; `None` for a code of another
            /// system or version.
            pub fn explain(&self) -> Option<(&'static str, &'static str)> {
                match self {
                    $(Self::$name => Some(($meaning, $remedy)),)*
                    Self::Other(_) => None,
                }
            }

            /// Whether the same request may succeed later without a change of its own. Nothing is
            /// known of [`Code::Other`].
            pub fn is_worth_a_retry(&self) -> bool {
                let again = match self {
                    $(Self::$name => Again::$again,)*
                    Self::Other(_) => Again::Final,
                };
                matches!(again, Again::Retry)
            }
        }
    };
}

codes! {
    AccessDenied = "Access.Denied", Final, "The caller lacks a role for this.", "Ask an owner of the workspace for the role that the text names.";
    AccessNoIssuer = "Access.NoIssuer", Retry, "The issuer of tokens cannot be reached.", "Check the issuer's address and the network, and send the request again.";
    AccessNoToken = "Access.NoToken", Final, "The request has no token, or one that is not valid here.", "Send a valid token of the workspace's issuer.";
    BatchHandBack = "Batch.HandBack", Retry, "A message could not be handed back to its queue at once.", "Nothing: it comes back after its visibility time.";
    ChatNotAChat = "Chat.NotAChat", Final, "The flow has no input for a chat, or no output of one.", "Mark an input and an output in the flow's file, or use a run.";
    ChatNotRead = "Chat.NotRead", Final, "Standard input of a chat cannot be read.", "Send text in UTF-8.";
    CommandCrashed = "Command.Crashed", Retry, "A fault of pfsession itself ended the command.", "Look at the state of what was asked for, try again, and report the fault.";
    CommandMalformed = "Command.Malformed", Final, "The body is no command of this version.", "Correct the command after its JSON schema.";
    CommandNoPrincipal = "Command.NoPrincipal", Final, "A command of the system itself does not say for whom it is.", "Name the principal in the command.";
    CommandNoSchema = "Command.NoSchema", Final, "The command prints no JSON that has a schema.", "Choose a command from the list of schemas.";
    CommandNotConfirmed = "Command.NotConfirmed", Final, "The command asks for a confirmation and got none.", "Confirm it, or give `--yes`.";
    CommandNotPrinted = "Command.NotPrinted", Final, "Standard output did not take everything.", "Send the output where there is room.";
    CommandNotWritten = "Command.NotWritten", Final, "A file that the command writes cannot be written.", "Name another place.";
    CommandNothingToChange = "Command.NothingToChange", Final, "An update names no setting.", "Name a setting.";
    CommandNothingToSave = "Command.NothingToSave", Final, "Packages are to be saved, and none is named.", "Name a package.";
    CommandWouldOverwrite = "Command.WouldOverwrite", Final, "The place to write to has files already.", "Name another folder.";
    ComputeAmbiguous = "Compute.Ambiguous", Final, "Several compute resources have an id that starts so.", "Type more of the id.";
    ComputeDied = "Compute.Died", Retry, "The instance ended while it started.", "Start the session again.";
    ComputeFailed = "Compute.Failed", Retry, "A request to the cloud failed while it made the compute resource.", "Read the cause in the text, and start the session again.";
    ComputeLost = "Compute.Lost", Retry, "The instance of the compute resource is gone.", "Start the session again.";
    ComputeNoCapacity = "Compute.NoCapacity", Retry, "The cloud has no capacity for the VM size now.", "Start again later, or take another VM size.";
    ComputeNoGpu = "Compute.NoGpu", Final, "The driver has no machine with the GPU of this VM size.", "Take a VM size without a GPU.";
    ComputeNoSuchSize = "Compute.NoSuchSize", Final, "The driver has no such VM size.", "Take another VM size.";
    ComputeNone = "Compute.None", Final, "There is no such compute resource, or none that the caller may see.", "List the compute resources.";
    ComputeNotJoined = "Compute.NotJoined", Retry, "The instance did not join the cluster in time.", "Start the session again.";
    ComputeNotTerminated = "Compute.NotTerminated", Retry, "The instance was told to end and has not been seen to.", "Nothing: the request comes again.";
    ComputeUnknownRequest = "Compute.UnknownRequest", Final, "The compute driver does not have this kind of request.", "Deploy the driver and the control plane of one version.";
    ConnectionBadFile = "Connection.BadFile", Final, "A file of a connection cannot be read as one.", "Correct the file after the text.";
    ConnectionNoName = "Connection.NoName", Final, "The file of a connection gives it no name.", "Add a line with its name, or give the name with the command.";
    ConnectionNoSecret = "Connection.NoSecret", Final, "A secret of a connection is missing or was scrubbed.", "Give the secret on standard input or in a file.";
    ConnectionNoSuchKey = "Connection.NoSuchKey", Final, "A flow or a variable names a key that the connection does not have.", "Name one of the keys in the text.";
    ConnectionNoToken = "Connection.NoToken", Retry, "The identity of the session gives no token for a connection.", "Check the identity and its rights, then run again.";
    ConnectionNone = "Connection.None", Final, "There is no connection of that name.", "Create the connection, or correct the name.";
    ConnectionNotBrokered = "Connection.NotBrokered", Final, "The key stays with a broker, which cannot serve this connection or variable.", "Use the connection through the broker's address, or store it without a broker.";
    ConnectionNotStored = "Connection.NotStored", Final, "The store of connections cannot be read or written.", "Correct the permissions or the disk that the text names.";
    ConnectionSecretInArgument = "Connection.SecretInArgument", Final, "A secret was given as an argument, which others on the machine can see.", "Give it on standard input.";
    ConnectionUnknownType = "Connection.UnknownType", Final, "A connection has a type that the session's version does not know.", "Update the service, or name another connection.";
    ConnectionUnreachable = "Connection.Unreachable", Retry, "The service that keeps connections does not give them.", "Run again in a moment.";
    DriverAlreadyRunning = "Driver.AlreadyRunning", Final, "Another driver or service uses the state folder.", "End that one, or name another state folder.";
    DriverCredentials = "Driver.Credentials", Retry, "Keys for an agent could not be made or withdrawn.", "Read the cause in the log.";
    DriverFailed = "Driver.Failed", Retry, "The compute driver cannot work.", "Read the cause in the text and remove it.";
    DriverMalformed = "Driver.Malformed", Final, "A message in the driver's queue is no compute request of this version.", "Use a driver of the control plane's version.";
    DriverNoCredentials = "Driver.NoCredentials", Final, "The driver has no credentials for the control plane.", "Set the credentials that the text names.";
    DriverNoQueue = "Driver.NoQueue", Final, "The control plane's queue is not there.", "Check the deployment, the region and the prefix of the queues.";
    DriverNoRegion = "Driver.NoRegion", Final, "The control plane's region is not known.", "Set `AWS_REGION`.";
    DriverRefused = "Driver.Refused", Final, "The control plane refuses the driver's credentials.", "Set those of a user or role that may use the queue.";
    DriverUnreachable = "Driver.Unreachable", Retry, "The control plane cannot be reached.", "Check the endpoint, the region and the network.";
    FlowAbsoluteInclude = "Flow.AbsoluteInclude", Final, "An additional include is an absolute path.", "Write it relative to the flow folder.";
    FlowBadEnvironment = "Flow.BadEnvironment", Final, "The flow's `environment` has a value of a wrong type.", "Correct the value that the text names.";
    FlowBadFlowFile = "Flow.BadFlowFile", Final, "The flow's file cannot be read as one.", "Correct the line that the text names.";
    FlowBadIncludes = "Flow.BadIncludes", Final, "`additional_includes` is no list of paths.", "Write a list of paths relative to the flow folder.";
    FlowBadPath = "Flow.BadPath", Final, "The path of a flow folder is not UTF-8.", "Rename the folder.";
    FlowBadProject = "Flow.BadProject", Final, "A project file (`pyproject.toml`, `environment.yml`, `Pipfile`, …) cannot be read.", "Correct the line that the text names.";
    FlowBadRequirement = "Flow.BadRequirement", Final, "A line of the requirements is invalid, or names itself.", "Correct the line that the text names.";
    FlowBadRunFile = "Flow.BadRunFile", Final, "The run file cannot be read, or a value in it is wrong.", "Correct the line that the text names.";
    FlowIncludeCollision = "Flow.IncludeCollision", Final, "Two includes have the same name in the flow folder.", "Rename one of them.";
    FlowLinkLoop = "Flow.LinkLoop", Final, "A symbolic link leads back to a folder above it.", "Remove the link.";
    FlowLocalPackage = "Flow.LocalPackage", Final, "A requirement is a local folder or file outside the flow folder.", "Put its modules into the flow folder, or publish it to an index.";
    FlowMissingInclude = "Flow.MissingInclude", Final, "An additional include is not there.", "Correct the path.";
    FlowMissingRequirements = "Flow.MissingRequirements", Final, "The requirements file that the flow names is not there.", "Create it, or correct its name.";
    FlowMoved = "Flow.Moved", Final, "The flow of this folder was moved to another one.", "Use the folder that the text names.";
    FlowNoFlow = "Flow.NoFlow", Final, "The folder holds no flow, no Python and no requirements.", "Name the folder that holds the flow.";
    FlowNoRepository = "Flow.NoRepository", Final, "The folder has no git repository whose `origin` has an address.", "Add the remote, or tell flows apart by their folders.";
    FlowNoSnapshot = "Flow.NoSnapshot", Final, "The service cannot see the flow folder, and no snapshot of it was sent.", "Send the command with `pfsession`, or name the snapshot's address.";
    FlowNoSuchFolder = "Flow.NoSuchFolder", Final, "The folder is not there.", "Correct the path.";
    FlowNotAFolder = "Flow.NotAFolder", Final, "The path is no folder.", "Name the folder that holds the flow.";
    FlowNotMoved = "Flow.NotMoved", Final, "The session cannot follow its flow's folder.", "Do what the text says, and move it then.";
    FlowPathLeadsOut = "Flow.PathLeadsOut", Final, "A path in the flow leads out of its folder.", "Use `additional_includes`.";
    FlowPinnedPromptflow = "Flow.PinnedPromptflow", Final, "A requirement pins promptflow, which the base image has.", "Take the pin or the line out.";
    FlowProjectRequirements = "Flow.ProjectRequirements", Final, "Packages cannot be saved: they are in a project file.", "Add them there.";
    FlowReadFailed = "Flow.ReadFailed", Final, "A fault of pfsession itself ended the reading of the folder.", "Report it, and undo the last change of the flow's file or requirements.";
    FlowReadTimeout = "Flow.ReadTimeout", Retry, "The folder could not be read in time.", "Check its disk, and try again.";
    FlowSharedRequirements = "Flow.SharedRequirements", Final, "Packages cannot be saved: other flows may share the requirements file.", "Add them there.";
    FlowTooLarge = "Flow.TooLarge", Final, "The flow folder, or a file or list in it, is larger than the limit.", "Move out what the flow does not need.";
    FlowTwoFlows = "Flow.TwoFlows", Final, "The folder has two flow files.", "Keep one of them.";
    FlowUnreadable = "Flow.Unreadable", Retry, "A file of the flow folder cannot be read, or changed while it was read.", "Correct its permissions, and try again.";
    FlowUnwritable = "Flow.Unwritable", Final, "A file of the flow folder cannot be written.", "Correct its permissions.";
    FlowVariableInRequirement = "Flow.VariableInRequirement", Final, "A requirement holds an environment variable.", "Write its value, or store the credential of the feed.";
    FunctionFailed = "Function.Failed", Retry, "A function of the one-machine host failed on a message.", "Nothing: the message comes again; the log has the cause.";
    FunctionInit = "Function.Init", Retry, "A function of the one-machine host does not start.", "Read the cause in the log.";
    FunctionTimedOut = "Function.TimedOut", Retry, "A function of the one-machine host did not answer in time.", "Nothing: the message comes again.";
    HostDiskFull = "Host.DiskFull", Retry, "The disk of the one-machine host's state is full.", "Make room.";
    HttpBadChange = "Http.BadChange", Final, "The body is no change of a run.", "Correct the body after its JSON schema.";
    HttpBadOffer = "Http.BadOffer", Final, "The body is no offer of a snapshot.", "Correct the body after its JSON schema.";
    HttpBadQuery = "Http.BadQuery", Final, "The query has a parameter that the route does not have, or a value that it does not take.", "Use the parameters and values that the text names.";
    HttpBadStatus = "Http.BadStatus", Final, "The parameter `status` is no status of a run.", "Use a status that the text names.";
    HttpBadUsers = "Http.BadUsers", Final, "The parameter `users` is neither `all` nor left out.", "Use `all`, or leave it out.";
    HttpMalformed = "Http.Malformed", Final, "The request is no HTTP request of this API.", "Correct the request.";
    HttpNoConnections = "Http.NoConnections", Final, "The service keeps no connections.", "Keep them on the machine of the service.";
    HttpNoSnapshots = "Http.NoSnapshots", Final, "The service reads flow folders where they are, and takes no snapshots.", "Name the flow folder's path.";
    HttpNoSuchRoute = "Http.NoSuchRoute", Final, "The API has no such route.", "Correct the address.";
    HttpNotFound = "Http.NotFound", Final, "There is no such thing, or none that the caller may see.", "Correct the id, or ask for a role.";
    HttpNotYourFlow = "Http.NotYourFlow", Final, "The caller may not send flows for this user and workspace.", "Send the caller's own flow, or ask for the role.";
    HttpTooLong = "Http.TooLong", Final, "A part of the address is longer than any id.", "Correct the id.";
    HttpTryAgain = "Http.TryAgain", Retry, "The service could not do this now.", "Try again in a moment.";
    ImageBadAccount = "Image.BadAccount", Final, "The account of a registry cannot be used or stored.", "Give the account as the text says.";
    ImageBadArchive = "Image.BadArchive", Final, "The file is no archive of an image.", "Write the archive anew.";
    ImageBadLayer = "Image.BadLayer", Final, "A layer of the image cannot be unpacked safely.", "Build the image anew, or do not trust it.";
    ImageBadManifest = "Image.BadManifest", Final, "The image's manifest or configuration cannot be read.", "Build or push the image anew.";
    ImageBadName = "Image.BadName", Final, "The name is no name of an image.", "Correct the name.";
    ImageBadPython = "Image.BadPython", Final, "The image's Python does not run, or lacks modules that sessions need.", "Name an image whose `python3` is complete.";
    ImageDenied = "Image.Denied", Final, "The registry does not give the image to this account.", "Store an account for the registry, or correct the image's name.";
    ImageDigestMismatch = "Image.DigestMismatch", Final, "What was pulled is not what its digest says.", "Pull again; if it stays so, do not trust the registry or a proxy between.";
    ImageDiskFull = "Image.DiskFull", Final, "There is no room for the image.", "Make room, or remove images.";
    ImageFailed = "Image.Failed", Retry, "The image could not be pulled, unpacked or kept.", "Read the cause in the text, and start again.";
    ImageInUse = "Image.InUse", Final, "Sessions use the image.", "Stop those sessions first.";
    ImageMusl = "Image.Musl", Final, "The image is built on musl, for which most packages have no wheels.", "Name an image built on glibc.";
    ImageNoPlatform = "Image.NoPlatform", Final, "The image is not made for this machine's architecture.", "Name an image that is.";
    ImageNoPython = "Image.NoPython", Final, "The image has no `python3`.", "Add Python to the image, or name another one.";
    ImageNoRegistry = "Image.NoRegistry", Final, "A Dockerfile cannot name a base image that is a file.", "Push the image to a registry.";
    ImageNoSandbox = "Image.NoSandbox", Final, "This machine cannot give a session the root folder of an image.", "Allow what the text names, or use the plain base image.";
    ImageNotFound = "Image.NotFound", Final, "The registry has no such image or tag.", "Correct the name or the tag.";
    ImageNotHere = "Image.NotHere", Final, "The image is not on this machine.", "Pull the image.";
    ImageOldPython = "Image.OldPython", Final, "The image's Python is older than sessions need.", "Name an image with a newer Python.";
    ImagePushDenied = "Image.PushDenied", Final, "The registry does not take the image from this account.", "Store an account that may push there.";
    ImagePushRefused = "Image.PushRefused", Final, "The registry refuses the image.", "Read the registry's words in the text, and correct the name or the registry's settings.";
    ImageTooLarge = "Image.TooLarge", Final, "The image, or a layer of it, is larger than the limit.", "Make the image smaller.";
    ImageUnreachable = "Image.Unreachable", Retry, "The registry cannot be reached, or broke off.", "Check the network and the registry's address, and start again.";
    InstallBadOption = "Install.BadOption", Final, "An option of an index or of uv in the environment is wrong.", "Correct what the text names.";
    InstallBadRequirement = "Install.BadRequirement", Final, "A requirement is none, or holds a credential in its URL.", "Correct the line that the text names.";
    InstallBuildFailed = "Install.BuildFailed", Final, "A package could not be built from source.", "Take a version that has a wheel, or install what its build needs.";
    InstallConflict = "Install.Conflict", Final, "The requirements exclude each other, or what the base image has.", "Change one of the requirements that the text names.";
    InstallCrashed = "Install.Crashed", Retry, "A fault of pfsession itself ended the install.", "Install again, and report the fault.";
    InstallDiskFull = "Install.DiskFull", Final, "There is no room for the packages.", "Make room, and start again.";
    InstallFailed = "Install.Failed", Retry, "The install failed for a reason that has no code of its own.", "Read the output that the text names.";
    InstallHashMismatch = "Install.HashMismatch", Final, "A package is not what its hash says.", "Correct the hash, or do not trust the index.";
    InstallIndexNotTrusted = "Install.IndexNotTrusted", Final, "The certificate of the package index is not trusted.", "Name the certificate of its authority in `SSL_CERT_FILE`.";
    InstallIndexRefused = "Install.IndexRefused", Final, "The package index refuses the credentials.", "Correct the credentials of the index.";
    InstallIndexUnreachable = "Install.IndexUnreachable", Retry, "The package index does not answer.", "Check the network, or name another index.";
    InstallNoSuchImage = "Install.NoSuchImage", Final, "There is no base image of that name.", "Name one that the text lists, or one of a registry.";
    InstallNoSuchInstall = "Install.NoSuchInstall", Final, "The flow has no such install.", "List the installs.";
    InstallNoSuchLock = "Install.NoSuchLock", Final, "The lock of the packages is no longer here.", "Install again, which makes a new lock.";
    InstallNoSuchPackage = "Install.NoSuchPackage", Final, "The package index has no such package.", "Correct the name, or name its index.";
    InstallNoSuchVersion = "Install.NoSuchVersion", Final, "The package has no such version, or none for this Python and platform.", "Change the version.";
    InstallNoUv = "Install.NoUv", Final, "uv is not on `PATH` and could not be fetched.", "Connect to a network, or install uv.";
    InstallNothingBefore = "Install.NothingBefore", Final, "The session has had no other packages to go back to.", "Name the packages that it should have.";
    InstallOtherPython = "Install.OtherPython", Final, "The session's Python is not a version that the folder requires.", "Install that Python, name a base image that has it, or change the file that asks for it.";
    InstallPrivateFeed = "Install.PrivateFeed", Final, "The credential of a package index cannot be read or stored, or is missing.", "Store the credential as the text says.";
    InstallPythonMissing = "Install.PythonMissing", Final, "The machine has no Python that flows can use.", "Install Python, or name one in `PFSESSION_PYTHON`.";
    InstallTampered = "Install.Tampered", Final, "A build left behind what uv does not make.", "Take versions that have a wheel, or do not trust the package.";
    InstanceDeleted = "Instance.Deleted", Final, "The compute instance of the session was deleted.", "Start the session on other compute.";
    InstanceExists = "Instance.Exists", Final, "There is a compute instance of that name already.", "Take another name.";
    InstanceFixedSettings = "Instance.FixedSettings", Final, "A compute instance has its own VM size and identity.", "Leave those settings out, or move the session to serverless compute.";
    InstanceGone = "Instance.Gone", Retry, "The compute instance was stopped meanwhile, or its machine could not be had.", "Start the compute instance.";
    InstanceIdleShutdown = "Instance.IdleShutdown", Final, "The compute instance was idle and shut itself down.", "Start the compute instance, then the session.";
    InstanceNone = "Instance.None", Final, "There is no compute instance of that name.", "Create it, or correct the name.";
    InstanceNotRunning = "Instance.NotRunning", Retry, "The compute instance is not running.", "Start the compute instance.";
    InstanceStopped = "Instance.Stopped", Final, "The compute instance of the session was stopped.", "Start the compute instance, then the session.";
    InstanceStopping = "Instance.Stopping", Retry, "The compute instance is being stopped.", "Wait until it has stopped.";
    ReportForged = "Report.Forged", Final, "A report came from no driver of the system.", "Find who sends it.";
    ReportMalformed = "Report.Malformed", Final, "A report cannot be read.", "Use agents and drivers of the control plane's version.";
    ReportRefused = "Report.Refused", Final, "The queue refuses a report for what is in it.", "Nothing: it is sent again without its texts.";
    ReportTooLarge = "Report.TooLarge", Final, "A report is larger than a message can be.", "Nothing: it is sent without what makes it large.";
    ReportUnproved = "Report.Unproved", Final, "A report of an agent does not prove which session it is of.", "Find who sends it.";
    RequestTooLarge = "Request.TooLarge", Final, "The HTTP request is too large, or broke off.", "Send less.";
    RequestTooSlow = "Request.TooSlow", Retry, "The HTTP request's body did not arrive in time.", "Try again.";
    RoleChanged = "Role.Changed", Retry, "The roles were changed by somebody else meanwhile.", "Read them again, and repeat the change.";
    RoleMalformed = "Role.Malformed", Final, "The body is no list of roles.", "Correct the body after its JSON schema.";
    RoleNoIdentity = "Role.NoIdentity", Final, "The role is about no identity.", "Leave the identity out, or name the role managed-identity-operator.";
    RoleNone = "Role.None", Final, "The user does not have that role.", "List the roles.";
    RoleOwn = "Role.Own", Final, "Nobody can take the right to assign roles from themselves.", "Ask another owner of the workspace.";
    RunBadData = "Run.BadData", Final, "The data, or the column mapping, does not fit the flow's inputs.", "Correct what the text names.";
    RunBadFlow = "Run.BadFlow", Final, "promptflow cannot load the flow.", "Correct the flow's file after the text.";
    RunBadName = "Run.BadName", Final, "The name of the run is not allowed.", "Take another name.";
    RunBadOutput = "Run.BadOutput", Final, "An output of the flow is no JSON.", "Return values that can be written as JSON.";
    RunCanceled = "Run.Canceled", Final, "The run was canceled.", "Run again.";
    RunCodeRaised = "Run.CodeRaised", Final, "The flow's code raised an exception.", "Correct the code; the run's log has the traceback.";
    RunCrashed = "Run.Crashed", Retry, "The process of the run ended without a result.", "Find what ended it in the run's log, and run again.";
    RunDataTooLarge = "Run.DataTooLarge", Final, "The data is larger than the limit of one run.", "Split the data.";
    RunDiskFull = "Run.DiskFull", Final, "There is no room for the run's files.", "Make room, and run again.";
    RunEarlierUnreachable = "Run.EarlierUnreachable", Retry, "The store does not give the files of an earlier run.", "Run again in a moment.";
    RunExitCode = "Run.ExitCode", Final, "The command exited with a code that is not zero.", "Read its output.";
    RunFailed = "Run.Failed", Retry, "The run's files cannot be read or written.", "Read the cause in the text, and run again.";
    RunFilesElsewhere = "Run.FilesElsewhere", Final, "The files of the run are on another machine.", "Wait for the run's end, which sends them to the store, or read them there.";
    RunFilesGone = "Run.FilesGone", Final, "The files of the run are not in the store (any more).", "Run it again.";
    RunFilesNotKept = "Run.FilesNotKept", Final, "Not all files that the run made are kept.", "Have it make less, or make room.";
    RunHasEnded = "Run.HasEnded", Final, "The run has ended, and cannot be canceled.", "Look at its result.";
    RunImportFailed = "Run.ImportFailed", Final, "The flow's code imports a module that is not there.", "Add the package to the requirements, or correct the import.";
    RunLineTimeout = "Run.LineTimeout", Final, "A line took longer than its limit.", "Raise the limit, or give the line less to do.";
    RunLinesFailed = "Run.LinesFailed", Final, "Lines of the run failed.", "Read the run's log.";
    RunLost = "Run.Lost", Retry, "The session's agent no longer knows the run.", "Run again.";
    RunNameTaken = "Run.NameTaken", Final, "Another run has this name.", "Take another name.";
    RunNoData = "Run.NoData", Final, "The file of data cannot be read.", "Name a file of data.";
    RunNoSecretVariables = "Run.NoSecretVariables", Final, "The values of secret variables are not on this machine.", "Give them with a new run.";
    RunNoSuchRun = "Run.NoSuchRun", Final, "The run whose outputs this one reads is not there.", "Name a run that is there, or run it first.";
    RunNone = "Run.None", Final, "There is no such run, or none that the caller may see.", "List the runs.";
    RunNotDeleted = "Run.NotDeleted", Final, "The folder of the run cannot be removed.", "Correct its permissions, and delete the run again.";
    RunNotEnded = "Run.NotEnded", Retry, "The run has not ended.", "Cancel it, or wait for its end.";
    RunNotReady = "Run.NotReady", Retry, "The session has no packages yet.", "Run again when the session is Ready.";
    RunNotResumable = "Run.NotResumable", Final, "The run cannot be resumed.", "Run the flow anew.";
    RunNotStarted = "Run.NotStarted", Retry, "The process of the run could not be started.", "Read the cause in the text, and run again.";
    RunNotSupported = "Run.NotSupported", Final, "The run file has a key that is not supported.", "Do what the text says in its place.";
    RunOutOfMemory = "Run.OutOfMemory", Final, "The run needed more memory than the VM size has.", "Take a larger VM size, or give the flow less at once.";
    RunOutputsElsewhere = "Run.OutputsElsewhere", Final, "The outputs of the run are larger than an answer carries, and are on another machine.", "Read them there, or have the flow return less.";
    RunSecretElsewhere = "Run.SecretElsewhere", Final, "A secret variable was to be sent to a service on another machine.", "Use a connection.";
    RunTimeout = "Run.Timeout", Final, "The run took longer than its limit.", "Raise `PF_BATCH_TIMEOUT_SEC`, or split the data.";
    RunUnknownInput = "Run.UnknownInput", Final, "A mapping or value names an input that the flow does not have.", "Correct the name of the input.";
    RunUnread = "Run.Unread", Retry, "A file of the run was not read to its end.", "Try again.";
    RunVariableTooLarge = "Run.VariableTooLarge", Final, "An environment variable of the run is larger than a process takes.", "Make it smaller, or use a file.";
    ServeFailed = "Serve.Failed", Retry, "A flow cannot be served, or the end of a request was not seen.", "Read the cause in the text, and ask again.";
    ServePiecesDiffer = "Serve.PiecesDiffer", Final, "The pieces of a streamed output are not its whole.", "Ask without streaming.";
    ServiceBadToken = "Service.BadToken", Final, "The token is no JWT that names a user and a workspace.", "Get a new token.";
    ServiceClosing = "Service.Closing", Retry, "The service is shutting down.", "Try again in a moment.";
    ServiceDiskFull = "Service.DiskFull", Final, "The disk of the state folder is full.", "Make room, and try again.";
    ServiceNoAnswer = "Service.NoAnswer", Retry, "The function that answers the request failed.", "Try again.";
    ServiceNoState = "Service.NoState", Final, "There is no home folder to keep sessions in.", "Name a state folder.";
    ServiceNotEnded = "Service.NotEnded", Retry, "The service of an earlier version did not exit.", "End its process.";
    ServiceNotHere = "Service.NotHere", Final, "The command is about the service of this machine, and another one is named.", "Leave the address out.";
    ServiceNotStarted = "Service.NotStarted", Retry, "The service of this machine did not start.", "Read the service's log.";
    ServiceNotTakenUp = "Service.NotTakenUp", Retry, "The service has not taken the command up in time.", "Read the service's log; the command is not lost.";
    ServiceNotTrusted = "Service.NotTrusted", Final, "The certificate of the service is not trusted.", "Name the certificate of its authority in `SSL_CERT_FILE`.";
    ServiceOtherVersion = "Service.OtherVersion", Final, "The answer of the service is not understood.", "Use `pfsession` in the version of the service.";
    ServiceRefused = "Service.Refused", Final, "The service answers with an HTTP status and no error of its own.", "Read the status in the text.";
    ServiceUnavailable = "Service.Unavailable", Retry, "The service answers, and cannot do anything.", "Try again, and check the service.";
    ServiceUnreachable = "Service.Unreachable", Retry, "The service does not answer.", "Check the address and the network.";
    SessionAgentDied = "Session.AgentDied", Retry, "The process of the session's agent ended.", "Start the session again.";
    SessionAgentSilent = "Session.AgentSilent", Retry, "The session's agent has not been heard of for too long.", "Start the session again.";
    SessionAmbiguous = "Session.Ambiguous", Final, "Several sessions have a key that starts so.", "Type more of the key.";
    SessionBusy = "Session.Busy", Retry, "An operation runs and another one waits.", "Try again when one has ended, or stop the session.";
    SessionCanceled = "Session.Canceled", Retry, "Another command came in between and ended the operation.", "Try again.";
    SessionComputeDeleted = "Session.ComputeDeleted", Retry, "The compute resource of the session was deleted.", "Start the session again.";
    SessionComputeLost = "Session.ComputeLost", Retry, "The compute resource of the session is gone.", "Start the session again.";
    SessionContainerEnded = "Session.ContainerEnded", Retry, "The session's container ended without a report.", "Start the session again.";
    SessionDailyTimeUsedUp = "Session.DailyTimeUsedUp", Final, "The user's sessions have lived for as long as they may on one day.", "Start the session on the next day, or ask an owner of the workspace for more.";
    SessionDiskFull = "Session.DiskFull", Final, "There is no room for another session.", "Make room, and start again.";
    SessionIdleTooLong = "Session.IdleTooLong", Final, "The idle time is longer than the workspace allows.", "Take a shorter idle time.";
    SessionImageNotByDigest = "Session.ImageNotByDigest", Final, "A session with an identity needs an image named by digest.", "Name the image by its digest.";
    SessionImageNotPulled = "Session.ImageNotPulled", Final, "The image of the session could not be pulled.", "Correct the image's name or the rights to pull it.";
    SessionLaunchFailed = "Session.LaunchFailed", Retry, "The session's agent could not be started.", "Read the cause in the text, and start again.";
    SessionLaunchTimedOut = "Session.LaunchTimedOut", Retry, "The session's agent did not come up in time.", "Start the session again.";
    SessionLaunchTooLate = "Session.LaunchTooLate", Retry, "The container came up after its launch had been given up.", "Start the session again.";
    SessionMachineLeft = "Session.MachineLeft", Retry, "The driver of the session's machine was ended.", "Start the session again when there is another driver.";
    SessionNoCompute = "Session.NoCompute", Retry, "The compute resource of the launch is gone.", "Start the session again.";
    SessionNoGpu = "Session.NoGpu", Final, "The machine does not have the GPU of this VM size.", "Take a VM size without a GPU.";
    SessionNoIdentity = "Session.NoIdentity", Final, "The session may not have this user-assigned identity.", "Name one that the text lists, or leave it out.";
    SessionNoPackages = "Session.NoPackages", Final, "Nothing was ever installed for the flow.", "Start its session.";
    SessionNoSession = "Session.NoSession", Final, "The flow has no session.", "Start its session.";
    SessionNoSuchSize = "Session.NoSuchSize", Final, "There is no such VM size.", "Take one that the text names.";
    SessionNone = "Session.None", Final, "There is no such folder, session, operation or run.", "List the sessions.";
    SessionNotPlaced = "Session.NotPlaced", Retry, "The cluster did not place the session's container.", "Start the session again.";
    SessionNotStopped = "Session.NotStopped", Retry, "The container was told to end and has not been seen to.", "Nothing: the request comes again.";
    SessionOperationFailed = "Session.OperationFailed", Final, "The operation failed, and its row has the reason.", "Read the operation's failure.";
    SessionQuotaExceeded = "Session.QuotaExceeded", Retry, "The user's quota of sessions or processors is used up.", "Stop what the text names, then start again.";
    SessionRemoved = "Session.Removed", Retry, "The session was removed before it could be launched.", "Start the session again.";
    SessionStepFailed = "Session.StepFailed", Retry, "A step of the operation failed without a reason.", "Start the session again.";
    SessionStopped = "Session.Stopped", Final, "The session was stopped.", "Start the session again.";
    SessionSuperseded = "Session.Superseded", Final, "A stop ended the operation.", "Nothing, or start the session again.";
    SessionTimedOut = "Session.TimedOut", Retry, "A step of the operation did not end in time.", "Try again.";
    SessionTooManyRuns = "Session.TooManyRuns", Retry, "The session has as many runs as it may have.", "Try again when some have ended.";
    SessionUnknownOperation = "Session.UnknownOperation", Final, "The state machine does not have this kind of operation.", "Deploy the functions and the state machine of one version.";
    ShellConflict = "Shell.Conflict", Retry, "Another handler changed the row first.", "Nothing: the message comes again.";
    ShellMeaningless = "Shell.Meaningless", Final, "A message cannot be read.", "Find its sender in the dead-letter queue.";
    ShellOutside = "Shell.Outside", Retry, "A service that the handler calls failed.", "Nothing: the message comes again.";
    SnapshotDamaged = "Snapshot.Damaged", Final, "The stored snapshot is not what its digest says.", "Send the flow again.";
    SnapshotMissing = "Snapshot.Missing", Final, "The store has no such snapshot.", "Send the flow again.";
    SnapshotNoRoom = "Snapshot.NoRoom", Retry, "There is no room to unpack the snapshot.", "Make room, and try again.";
    SnapshotNotSent = "Snapshot.NotSent", Retry, "The store did not take the snapshot.", "Try again in a moment.";
    SnapshotNotYours = "Snapshot.NotYours", Final, "The address is no snapshot of this flow.", "Send the flow's own snapshot.";
    SnapshotRefused = "Snapshot.Refused", Final, "The store of snapshots refuses the access.", "Check the rights of the role on the store.";
    SnapshotTooLarge = "Snapshot.TooLarge", Final, "The snapshot is larger than the limit.", "Move out what the flow does not need.";
    SnapshotUnreachable = "Snapshot.Unreachable", Retry, "The store of snapshots cannot be reached.", "Try again in a moment.";
    SnapshotUnreadable = "Snapshot.Unreadable", Final, "The snapshot cannot be read.", "Send the flow again with this version.";
    StepMalformed = "Step.Malformed", Final, "A message of the state machine is no step.", "Deploy the functions and the state machine of one version.";
    StoreTidy = "Store.Tidy", Retry, "Expired rows could not be deleted.", "Nothing: they are deleted later.";
    TickMalformed = "Tick.Malformed", Final, "A message of the schedule is no tick.", "Deploy the functions and the schedule of one version.";
    TokenBadName = "Token.BadName", Final, "No token can be made for this user and workspace.", "Correct the name.";
    TokenNoIssuer = "Token.NoIssuer", Final, "The file of the issuer's key cannot be used.", "Name another file.";
    WebhookBadSecret = "Webhook.BadSecret", Final, "The secret of a webhook cannot be used.", "Give a secret as the text says.";
    WebhookChanged = "Webhook.Changed", Retry, "The rules were changed by somebody else meanwhile.", "Read them again, and repeat the change.";
    WebhookExists = "Webhook.Exists", Final, "There is a webhook of that name already.", "Take another name, or remove it first.";
    WebhookMalformed = "Webhook.Malformed", Final, "A delivery or a rule cannot be read.", "Correct what the text names.";
    WebhookNoKind = "Webhook.NoKind", Final, "This sender has no such event.", "Name an event that the text lists.";
    WebhookNoSecret = "Webhook.NoSecret", Final, "The secret of a sender cannot be kept or found.", "Do what the text says.";
    WebhookNone = "Webhook.None", Final, "There is no such webhook.", "List the webhooks.";
    WebhookNotGenuine = "Webhook.NotGenuine", Final, "The address is of no sender, or the signature does not fit.", "Compare address and secret with those of the webhook.";
    WebhookNotPost = "Webhook.NotPost", Final, "The delivery is no POST request.", "Send deliveries by POST.";
    WebhookOtherKind = "Webhook.OtherKind", Final, "The sender signs in another way than this webhook needs.", "Name another sender.";
    WebhookStale = "Webhook.Stale", Final, "The delivery is too old, or its time is in the future.", "Check the sender's clock, and send it again.";
    WebhookTooLarge = "Webhook.TooLarge", Final, "The delivery is larger than the limit.", "Have the sender send less.";
    WorkspaceBadFile = "Workspace.BadFile", Final, "The file of workspace settings cannot be read, or a value in it is wrong.", "Correct the line that the text names.";
    WorkspaceChanged = "Workspace.Changed", Retry, "The settings were changed by somebody else meanwhile.", "Read them again, and repeat the change.";
    WorkspaceIdentityType = "Workspace.IdentityType", Final, "The identity's type and its list of identities do not fit.", "Correct what the text names.";
    WorkspaceMalformed = "Workspace.Malformed", Final, "The body is no workspace settings.", "Correct the body after its JSON schema.";
    WorkspaceNoPrimaryIdentity = "Workspace.NoPrimaryIdentity", Final, "The primary user-assigned identity is none of the identities.", "Name one of the list.";
    WorkspaceNoSuchFamily = "Workspace.NoSuchFamily", Final, "There is no such family of VM sizes.", "Name one that the text lists.";
    WorkspaceNoWorkingDirectory = "Workspace.NoWorkingDirectory", Final, "The working directory is not there.", "Create it, or correct the setting.";
    WorkspaceNotAnObjectStore = "Workspace.NotAnObjectStore", Final, "The default data store is no object store.", "Name a data store of the type that the text names.";
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

#[cfg(feature = "wire")]
impl serde::Serialize for Code {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

#[cfg(feature = "wire")]
impl<'de> serde::Deserialize<'de> for Code {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|text| Self::read(&text))
    }
}

/// A string: a reader of an older version meets codes that it does not know.
#[cfg(feature = "wire")]
impl schemars::JsonSchema for Code {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        String::schema_name()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        String::json_schema(generator)
    }
}
