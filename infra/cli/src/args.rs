//! The command line: what may be said, and what its help says.

use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use contract::IdleSeconds;
use std::path::{Path, PathBuf};

const ABOUT: &str = "Compute sessions for prompt flows: isolated, with each flow's own packages, ready in milliseconds";

const LONG_ABOUT: &str = "\
Compute sessions for prompt flows.

A flow is a folder with a flow.dag.yaml or flow.flex.yaml, or any folder with Python code and a requirements.txt. Its compute session is an isolated \
container with a base image and the flow's packages. It is started once, is used by every run, and is deleted when nobody has used it for a while.

On this machine nothing has to be set up: a command that needs the service starts it. With --endpoint, the same commands use a service elsewhere.";

const AFTER: &str = "\
Examples:
  pfsession run ./my-flow --data lines.jsonl     run a flow over a file; start its session if it has none
  pfsession run ./my-flow --inputs text=hello    run a flow once
  pfsession run . -- python script.py            run a program in any folder, with the folder's packages
  pfsession list                                 see your sessions
  pfsession runs list                            see your runs; compare, cancel and delete them
  pfsession logs ./my-flow --follow              read what a session or run says
  pfsession stop ./my-flow                       delete a session

Exit codes:
  0    done
  1    the operation or the run failed, or some lines of the run did; of a command that was run, its own exit code
  2    the command is not one, or names something that is not there
  3    the service cannot be reached or started
  4    there is no such session, operation or run
  130  interrupted; what was begun goes on";

/// Where settings come from, for the help of the commands that take some.
macro_rules! settings_help {
    ($examples:literal) => {
        concat!(
            $examples,
            "

Each setting comes from the first of these that names it, and `pfsession show` says which:
  1. this command
  2. the run's own file, run.yml: resources.instance_type (the VM size), identity, network, allow_hosts
  3. the flow's own file, flow.dag.yaml or flow.flex.yaml: environment.image (the base image)
  4. the workspace's settings: the VM size, the base image, the largest idle time
  5. the default: all of this machine, yourself, the image `promptflow`, one hour, the internet
A session that is there keeps what it has, whatever a run's file names: `pfsession update` changes it."
        )
    };
}

/// The whole command line.
#[derive(Debug, Parser)]
#[command(name = "pfsession", version, about = ABOUT, long_about = LONG_ABOUT, after_help = AFTER)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What every command takes.
#[derive(Args, Debug)]
#[command(next_help_heading = "Everywhere")]
pub(crate) struct Global {
    /// Print JSON for programs on standard output, also for a failure
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// The service elsewhere to use, such as http://10.0.0.5:8080; without it, the one on this machine
    #[arg(
        long,
        global = true,
        env = "PFSESSION_ENDPOINT",
        value_name = "URL",
        requires = "token"
    )]
    pub(crate) endpoint: Option<String>,
    /// The bearer token for --endpoint; better given by its variable, as others can see a command line
    #[arg(
        long,
        global = true,
        env = "PFSESSION_TOKEN",
        hide_env_values = true,
        value_name = "JWT"
    )]
    pub(crate) token: Option<String>,
    /// Where the service on this machine keeps everything [default: ~/.local/state/pfsession]
    #[arg(long, global = true, env = "PFSESSION_STATE", value_name = "FOLDER")]
    pub(crate) state: Option<PathBuf>,
    /// The workspace; without it, the token's
    #[arg(long, global = true, env = "PFSESSION_WORKSPACE", value_name = "NAME")]
    pub(crate) workspace: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a flow, in the session that it has or gets
    #[command(after_help = "\
Outputs go to standard output, one JSON object a line; progress and the flow's log go to standard error. Ctrl-C leaves the run going.

Examples:
  pfsession run ./my-flow --data lines.jsonl
  pfsession run ./my-flow --data lines.jsonl --column-mapping question='${data.text}'
  pfsession run ./my-flow --inputs text=hello --inputs count:=3 --env STYLE=short
  pfsession run run.yml
  pfsession run ./my-flow --data lines.jsonl > outputs.jsonl
  pfsession run . -- python script.py --n 3

With a command, any folder will do that has Python, a requirements.txt or a project file: its session has these packages, and no promptflow. \
A project file is pyproject.toml (also Poetry's; a uv.lock, pylock.toml or poetry.lock holds its versions), Pipfile with its lock, \
environment.yml (its pip part) or setup.cfg; the first of these counts. \
What the command prints (up to 5,000 lines; the whole is in the run's log) goes to standard output and standard error, and its exit code is \
this one's. What it writes is kept in the run's folder; the folder itself stays as it is.")]
    Run(Box<Run>),
    /// Chat with a flow: each line that you type is said to it, with all that was said before
    #[command(after_help = "\
Each answer is a run in the flow's session. The flow's file marks what is said and answered (is_chat_input, is_chat_history, is_chat_output). An \
empty line or Ctrl-D ends the chat. An answer comes when it is whole.

Examples:
  pfsession chat ./my-chat-flow
  pfsession chat ./my-chat-flow --inputs language=French
  echo 'how are you?' | pfsession chat ./my-flow --chat-input question")]
    Chat(Box<Chat>),
    /// Serve a flow by HTTP on this machine, as `pf flow serve` does: /score, /health, /swagger.json, /feedback
    #[command(after_help = "\
It prints its address and a token, which each request needs. Each request is a run in the flow's session, which lives while the flow is served. \
Ctrl-C ends it.

Examples:
  pfsession serve ./my-flow --port 8080
  curl -H 'authorization: Bearer TOKEN' http://127.0.0.1:8080/score -d '{\"text\": \"hi\"}'")]
    Serve(Box<Serve>),
    /// Start a flow's session, or say that it is there
    #[command(after_help = settings_help!("\
Examples:
  pfsession start ./my-flow
  pfsession start ./my-flow --idle 8h --size Standard_D4s_v3"))]
    Start(Start),
    /// Change the settings of a session: what is named changes, the rest stays
    ///
    /// A new idle time counts at once, also on a session that is about to be deleted. So does a new network, and connections that it does not
    /// allow are cut; from or to `open`, it counts from the next run on. A new base image counts from the next reset on; until
    /// then `pfsession show` says that the image is stale. A new VM size or identity makes the session anew.
    #[command(after_help = settings_help!("\
Examples:
  pfsession update ./my-flow --idle 4h
  pfsession update ./my-flow --size Standard_D4s_v3
  pfsession update ./my-flow --network none --allow-host api.example.org:443
  pfsession update ./my-flow --image promptflow:3.12 && pfsession reset ./my-flow"))]
    Update(Update),
    /// Put off a session's deletion: its idle time begins anew, as if it had been used
    #[command(after_help = "\
Examples:
  pfsession extend ./my-flow
  pfsession update ./my-flow --idle 8h     for longer, up to 24h")]
    Extend(Stop),
    /// Delete a flow's session, in whatever phase it is
    #[command(after_help = "\
Examples:
  pfsession stop ./my-flow
  pfsession stop 3f9a2c           by the start of its key, as `pfsession list` shows it
  pfsession stop ./my-flow --yes  also with active runs, without a question; a script is never asked")]
    Stop(StopSession),
    /// Bring a session's packages to what the flow's requirements say now, or add packages to them first
    #[command(after_help = "\
An install is done whole or not at all: one that fails or is stopped leaves the session as it was. Packages that are named here are saved in the \
requirements file first; if they cannot be installed, the file is put back as well. --rollback changes the session and not the file, and \
`pfsession show` says how the two differ.

The base image's promptflow stays as it is: what cannot be imported beside it is an error. An --extra-index-url goes before the default index, \
and a version that it lacks comes from that; if one of the indexes has a credential, a package that an index has comes from it alone.

Examples:
  pfsession install ./my-flow
  pfsession install ./my-flow humanize 'flask<4'
  pfsession install ./my-flow humanize --save-only
  pfsession install ./my-flow --rollback")]
    Install(Install),
    /// List the packages of a flow's session, each with why it is there
    #[command(after_help = "\
Each install has a number and a lock, which --history shows and --diff takes.

Examples:
  pfsession packages ./my-flow
  pfsession packages ./my-flow --history
  pfsession packages ./my-flow --diff        what the last install changed
  pfsession packages ./my-flow --diff 2 5")]
    Packages(Packages),
    /// Delete a flow's session and make it anew, with the same environment; helps when its packages are in conflict
    ///
    /// It gets the packages that were last installed in it, at the same versions, whatever else the requirements say by now; on another base
    /// image, what the requirements say.
    #[command(after_help = "\
Examples:
  pfsession reset ./my-flow
  pfsession reset ./my-flow --resolve     with what the requirements say now, and the newest that fits
  pfsession reset ./my-flow --image promptflow:3.12")]
    Reset(Reset),
    /// List your sessions; those of everybody in the workspace too, if you are its owner
    #[command(after_help = "\
Examples:
  pfsession list
  pfsession list --all
  pfsession list --all-users       then show, why, events, logs and stop take a key of this list
  pfsession list --json | jq -r '.sessions[].flow.lineage'")]
    List {
        /// Also those that are stopped
        #[arg(long)]
        all: bool,
        /// Those of everybody in the workspace; this needs the role owner
        #[arg(long)]
        all_users: bool,
    },
    /// Show one session, operation or run
    #[command(after_help = "\
Examples:
  pfsession show ./my-flow
  pfsession show my-flow-1c9e54a07b2d --json")]
    Show {
        /// The flow's folder, the start of a session's key, or the id of an operation or a run
        what: String,
    },
    /// Say why a session is as it is: what keeps it, what will end it and when, who wanted it so; also of one that is gone
    #[command(after_help = "\
Examples:
  pfsession why ./my-flow
  pfsession why 3f9a2c --json | jq '.ends'")]
    Why {
        /// The flow's folder, or the start of a session's key
        #[arg(value_name = "FLOW", default_value = ".")]
        what: String,
    },
    /// Print the output of an operation or a run; of a flow, the latest
    #[command(after_help = "\
Examples:
  pfsession logs ./my-flow
  pfsession logs ./my-flow --follow
  pfsession logs start-5d0c77aa91e2")]
    Logs {
        /// The flow's folder, the start of a session's key, or the id of an operation or a run
        what: String,
        /// Go on until its end
        #[arg(long, short)]
        follow: bool,
    },
    /// List your runs, look at what came of them, compare, cancel and delete them
    #[command(subcommand)]
    Runs(Runs),
    /// Print the history of a flow's session: what happened, when, and who wanted it
    #[command(after_help = "\
Examples:
  pfsession events ./my-flow
  pfsession events ./my-flow --json | jq '.events[-1]'")]
    Events {
        /// The flow's folder, or the start of a session's key
        what: String,
    },
    /// Give the credential of a private package feed, which {private} in its URL stands for
    #[command(after_help = "\
The token is read from standard input, as a command line is seen by others. It is kept in the state folder for you alone, goes to this host and to \
no other, and is in nothing that an install leaves. In requirements.txt: -i https://{private}@feed.example/simple

Examples:
  pfsession private feed.example < token.txt      a token, or user:token
  pfsession private feed.example --remove
  pfsession private                               the hosts that have one")]
    Private {
        /// The feed's host, with its port if its URL has one
        host: Option<String>,
        /// Forget it
        #[arg(long, requires = "host")]
        remove: bool,
    },
    /// Have base images on this machine: pull, list and remove them
    #[command(subcommand)]
    Image(Image),
    /// Keep accounts at registries, with which images are pulled
    #[command(subcommand)]
    Registry(Registry),
    /// Keep the connections that flows name: to model providers, and to other services
    #[command(subcommand)]
    Connection(Connection),
    /// Start the service on this machine, and keep it until `pfsession down`
    #[command(after_help = "\
There is no need to: any command starts the service if none runs. One that was started that way leaves some minutes after its last session.

Examples:
  pfsession up
  pfsession up --foreground --port 9000")]
    Up {
        /// Stay in this terminal, and log to it
        #[arg(long)]
        foreground: bool,
        /// Listen on this port of 127.0.0.1; without it, a free one
        #[arg(long)]
        port: Option<u16>,
        #[command(flatten)]
        trial: Trial,
    },
    /// End the service on this machine
    #[command(after_help = "\
Sessions that are not stopped end by themselves within about a minute, unless the service comes back before.

Examples:
  pfsession down
  pfsession down --stop-sessions")]
    Down {
        /// Stop all sessions first, and wait for it
        #[arg(long)]
        stop_sessions: bool,
    },
    /// Say what happens when somebody outside says that something happened: a push, a release, a deployment
    #[command(subcommand)]
    Webhook(Webhook),
    /// List the VM sizes: processors, memory, disk, GPUs, list price
    #[command(after_help = "\
Sessions are started with these names: in any case, Azure's also without Standard_. The size `local` is all of this machine, and no VM.

Examples:
  pfsession sizes                each series
  pfsession sizes Dsv5           the sizes of a series, of a family (D, NC, m) or of the beginning of a name
  pfsession sizes --gpu
  pfsession sizes --json | jq -r '.sizes[] | select(.memory_gib >= 32) | .name'")]
    Sizes(Sizes),
    /// Check all that a flow's session needs to start, without starting it; the exit code is 1 if something is lacking
    #[command(after_help = "\
Each prerequisite is held, lacking, or not checkable here: role, vm-size, idle-time, identity (there, and yours to assign), data-store, \
working-directory, quota, requirements, base-image (built in, or its registry knows it), network (the package index answers).

A start checks all but the network before it makes anything, and ends with the same error. The registry is asked when the base image is pulled.

Examples:
  pfsession check ./my-flow
  pfsession check ./my-flow --size Standard_NC4as_T4_v3 --json | jq '.checks[] | select(.result == \"lacking\")'")]
    Check(Check),
    /// List the workspace's user-assigned identities, and the permissions that one needs
    #[command(subcommand)]
    Identity(Identity),
    /// Show and change the workspace's settings: defaults, quotas, identities
    #[command(subcommand)]
    Workspace(Workspace),
    /// Create, start and stop compute instances: compute resources of yours that outlive the sessions on them
    #[command(subcommand)]
    Instance(Instance),
    /// See the compute resources that your sessions are on, and delete one with all that is on it
    #[command(subcommand)]
    Compute(Compute),
    /// Say who may do what in the workspace; this needs the role owner or role-administrator
    #[command(subcommand)]
    Role(Role),
    /// Print the variables with which every AWS tool works against the service on this machine
    #[command(after_help = "\
Example:
  eval \"$(pfsession env)\" && aws sqs list-queues --endpoint-url \"$AWS_ENDPOINT_URL\"")]
    Env,
    /// Make this machine a compute instance of a control plane elsewhere: sessions that it asks for run here
    #[command(after_help = "\
The control plane is found as every AWS tool finds it: AWS_REGION, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN, and AWS_ENDPOINT_URL \
where it is not AWS itself. The credentials are to allow, on its queues: to receive, delete and change visibility on compute-requests; to send to \
reports; to create, delete, receive from and delete in agent-*, each behind --queue-prefix. The template's parameter DriverSenders is to have their id, which is what \
`aws sts get-caller-identity --query UserId` prints (for a role, the part before the colon).

Sessions go on when the driver ends, and are found again by the next start, unless --end-sessions is given. What it keeps is in the folder driver \
below --state.

Examples:
  eval \"$(aws configure export-credentials --profile me --format env)\" && AWS_REGION=eu-west-1 pfsession driver
  AWS_ENDPOINT_URL=http://127.0.0.1:4566 pfsession driver --end-sessions")]
    Driver(Driver),
    /// Make a bearer token for a user of a deployment that has no identity provider
    #[command(after_help = "\
The issuer's key is made in the file if there is none. Whoever has that file can be anybody: keep it where you keep such things.

Examples:
  pfsession token --issuer issuer.key --public                     the public key, for the deployment's IssuerKey
  pfsession token --issuer issuer.key --user ann --workspace lab   a token for Ann, good for 12 hours")]
    Token(Token),
    /// Print the completions of a shell: commands and options, by the tab key
    #[command(after_help = "\
Examples:
  pfsession completions bash > ~/.local/share/bash-completion/completions/pfsession
  pfsession completions zsh > ~/.zfunc/_pfsession
  pfsession completions fish > ~/.config/fish/completions/pfsession.fish")]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Measure how fast sessions are on this machine, beside what cannot be gone below and what there is without this
    ///
    /// It has a service of its own for as long as it lasts, and no session of yours sees it. The environments are yours: what it needs and you do
    /// not have is made first, which takes its time once. A figure means something on a machine that does nothing else meanwhile.
    #[command(after_help = "\
Examples:
  pfsession bench
  pfsession bench --rounds 41 --at-once 20 --json > figures.json")]
    Bench(Bench),
    /// Print the manual page, or write it and those of all commands into a folder
    #[command(after_help = "\
Examples:
  pfsession man | man -l -
  pfsession man --out ~/.local/share/man/man1 && man pfsession-run")]
    Man {
        /// The folder that the pages are written to
        #[arg(long, value_name = "FOLDER")]
        out: Option<PathBuf>,
    },
    /// Print the JSON schema of what a command prints with --json
    #[command(after_help = "\
Examples:
  pfsession schema             the commands that have one
  pfsession schema list
  pfsession schema failure     what is printed when a command fails")]
    Schema {
        /// The command
        command: Vec<String>,
    },
    /// Be the service.
    #[command(hide = true)]
    Host(Host),
}

/// What a driver serves with.
#[derive(Args, Debug)]
pub(crate) struct Driver {
    /// What stands before the names of the control plane's queues
    #[arg(long, value_name = "PREFIX", default_value = "pfsession-")]
    pub(crate) queue_prefix: String,
    /// End this machine's sessions when the driver ends
    #[arg(long)]
    pub(crate) end_sessions: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Runs {
    /// List your runs, newest first
    #[command(after_help = "\
Examples:
  pfsession runs list
  pfsession runs list --flow ./my-flow --status Failed
  pfsession runs list --tag team=search --all --json | jq -r '.runs[].id'")]
    List(ListRuns),
    /// Show a run; with --nodes, what each node of it did in each line
    #[command(after_help = "\
Examples:
  pfsession runs show my-flow-1c9e54a07b2d
  pfsession runs show my-flow-1c9e54a07b2d --nodes")]
    Show {
        /// The run
        run: String,
        /// The inputs, output, time, tokens and log of each node, as promptflow has them
        #[arg(long)]
        nodes: bool,
    },
    /// Print the table of a run's lines: status, inputs, outputs, error
    #[command(after_help = "\
A long value is cut in the table, and ends with …; --json prints each line whole.

Examples:
  pfsession runs details my-flow-1c9e54a07b2d
  pfsession runs details my-flow-1c9e54a07b2d --json | jq 'select(.status == \"Failed\")'")]
    Details {
        /// The run
        run: String,
    },
    /// Print what a run's aggregation measured
    #[command(after_help = "\
Example:
  pfsession runs metrics my-eval-8c1b2f90aa31")]
    Metrics {
        /// The run
        run: String,
    },
    /// Print a run's outputs, one JSON object a line; `null` where a line failed
    #[command(after_help = "\
Example:
  pfsession runs outputs my-flow-1c9e54a07b2d > outputs.jsonl")]
    Outputs {
        /// The run
        run: String,
    },
    /// Print a run's whole log
    #[command(after_help = "\
Example:
  pfsession runs logs my-flow-1c9e54a07b2d --follow")]
    Logs {
        /// The run
        run: String,
        /// Go on until its end
        #[arg(long, short)]
        follow: bool,
    },
    /// Give a run another display name; its own name stays
    #[command(after_help = "\
Example:
  pfsession runs rename my-flow-1c9e54a07b2d 'shorter prompt, second try'")]
    Rename {
        /// The run
        run: String,
        /// What people are to call it
        name: String,
    },
    /// Leave a run out of lists
    #[command(after_help = "\
Example:
  pfsession runs archive my-flow-1c9e54a07b2d")]
    Archive {
        /// The run
        run: String,
    },
    /// Have lists show a run again that was archived
    #[command(after_help = "\
Example:
  pfsession runs list --archived && pfsession runs restore my-flow-1c9e54a07b2d")]
    Restore {
        /// The run
        run: String,
    },
    /// Delete a run that has ended, with its outputs and its log
    #[command(after_help = "\
Its name can be given again ten minutes later.

Example:
  pfsession runs delete my-flow-1c9e54a07b2d")]
    Delete {
        /// The run
        run: String,
    },
    /// Compare two runs, line by line and metric by metric; the exit code is 1 if they differ
    #[command(after_help = "\
Example:
  pfsession runs diff before-the-upgrade after-the-upgrade")]
    Diff {
        /// One run
        before: String,
        /// The other
        after: String,
    },
    /// Write runs as one HTML file, and print where it is
    #[command(after_help = "\
Example:
  xdg-open \"$(pfsession runs visualize my-flow-1c9e54a07b2d --out run.html)\"")]
    Visualize {
        /// The runs
        #[arg(value_name = "RUN", required = true)]
        runs: Vec<String>,
        /// The file [default: the run's name, in this folder]
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// End a run and all its processes, and nothing else: its session stays
    #[command(after_help = "\
Example:
  pfsession runs cancel my-flow-1c9e54a07b2d")]
    Cancel {
        /// The run
        run: String,
    },
    /// Copy a run's folder: outputs, log, records, and the files that it made
    #[command(after_help = "\
Example:
  pfsession runs download my-flow-1c9e54a07b2d --to ./results")]
    Download {
        /// The run
        run: String,
        /// The folder, which is not there yet [default: the run's name]
        #[arg(long, value_name = "FOLDER")]
        to: Option<PathBuf>,
    },
}

#[derive(Args, Debug)]
pub(crate) struct ListRuns {
    /// Only those of this flow: its folder, or the start of its session's key
    #[arg(long, value_name = "FLOW")]
    pub(crate) flow: Option<String>,
    /// Only those with this in their name or display name
    #[arg(long, value_name = "TEXT")]
    pub(crate) name: Option<String>,
    /// Only those with this tag: NAME, or NAME=VALUE
    #[arg(long, value_name = "TAG")]
    pub(crate) tag: Option<String>,
    /// Only those that are so
    #[arg(long, value_enum, ignore_case = true)]
    pub(crate) status: Option<StatusOfRun>,
    /// Those that are archived, in place of the others
    #[arg(long)]
    pub(crate) archived: bool,
    /// How many at most
    #[arg(long, value_name = "COUNT", default_value_t = 25, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) limit: u32,
    /// Go on where a list before has ended, as it says
    #[arg(long, value_name = "PLACE")]
    pub(crate) after: Option<String>,
    /// All there are
    #[arg(long, conflicts_with_all = ["limit", "after"])]
    pub(crate) all: bool,
}

/// A run's status, as on the wire.
#[derive(Clone, Copy, Debug, ValueEnum)]
#[value(rename_all = "PascalCase")]
pub(crate) enum StatusOfRun {
    NotStarted,
    Running,
    Completed,
    Failed,
    Canceled,
}

impl StatusOfRun {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::NotStarted => "NotStarted",
            Self::Running => "Running",
            Self::Completed => "Completed",
            Self::Failed => "Failed",
            Self::Canceled => "Canceled",
        }
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Connection {
    /// Keep a connection, in place of one of its name
    #[command(after_help = "\
The file is promptflow's own: name, type, and the keys of that type. A secret that is left out, empty, or <user-input> is asked for: at the \
terminal, or from standard input, where one stands alone and several are lines KEY=SECRET. It is kept in the state folder for you alone. A run \
gets the connections whose names stand in its flow's files or in its own settings, in memory.

No flow gets the key of a new connection to OpenAI, Azure OpenAI or a serverless endpoint. It gets the address of a broker of its session, which adds \
the key to what goes to that provider. A flow that has to have the key itself: --brokered=false.

Types: azure_open_ai, open_ai, serverless, serp, qdrant, weaviate, cognitive_search, azure_ai_services, azure_content_safety, form_recognizer, \
custom.

Examples:
  pfsession connection create -f connection.yml
  pfsession connection create -f connection.yml --name my_model < key.txt
  pfsession connection create -f connection.yml --for-workspace")]
    Create(CreateConnection),
    /// List the connections that you may use: your own, and the workspace's
    #[command(after_help = "\
Examples:
  pfsession connection list
  pfsession connection list --json | jq -r '.connections[].name'")]
    List,
    /// Show a connection, without its secrets
    #[command(after_help = "\
Example:
  pfsession connection show my_model")]
    Show {
        /// The connection's name
        name: String,
    },
    /// Change a connection: what is named changes, the rest stays
    #[command(after_help = "\
A secret that the file leaves empty, or as stars or <no-change>, stays; <user-input> is asked for.

Examples:
  pfsession connection update my_model --set api_base=https://other.example
  pfsession connection update my_model --secret api_key < key.txt
  pfsession connection update my_model --brokered
  pfsession connection update my_model -f connection.yml")]
    Update(UpdateConnection),
    /// Forget a connection
    #[command(after_help = "\
Example:
  pfsession connection delete my_model")]
    Delete {
        /// The connection's name
        name: String,
        /// The workspace's, and not your own
        #[arg(long)]
        for_workspace: bool,
    },
    /// Keep all connections of promptflow's own list; it has no secrets, which are asked for
    #[command(after_help = "\
Secrets are asked for at the terminal, or come from standard input as lines NAME.KEY=SECRET.

Example:
  pf connection list > connections.json && pfsession connection import connections.json")]
    Import {
        /// What `pf connection list` has printed, or - for standard input
        #[arg(value_name = "FILE")]
        file: PathBuf,
        #[command(flatten)]
        brokered: Brokered,
        /// For all of the workspace
        #[arg(long)]
        for_workspace: bool,
    },
}

#[derive(Args, Debug)]
pub(crate) struct CreateConnection {
    /// The connection's file, or - for standard input
    #[arg(long, short, value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Its name, in place of the file's
    #[arg(long, short)]
    pub(crate) name: Option<String>,
    #[command(flatten)]
    pub(crate) brokered: Brokered,
    /// For all of the workspace; a user's own of the same name comes first
    #[arg(long)]
    pub(crate) for_workspace: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Brokered {
    /// Keep its key with a broker outside the sandbox: a flow gets an address in its place. The default of a new connection of type azure_open_ai,
    /// open_ai or serverless with a key; false gives flows the key itself
    #[arg(
        long = "brokered",
        value_name = "true|false",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true"
    )]
    pub(crate) wanted: Option<bool>,
}

#[derive(Args, Debug)]
pub(crate) struct UpdateConnection {
    /// The connection's name
    pub(crate) name: String,
    /// Take what this file says, or - for standard input
    #[arg(long, short, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// A value that is no secret
    #[arg(long, value_name = "KEY=TEXT", value_parser = named_text, num_args = 1..)]
    pub(crate) set: Vec<(String, String)>,
    /// Ask for this secret anew; may be given again
    #[arg(long, value_name = "KEY")]
    pub(crate) secret: Vec<String>,
    #[command(flatten)]
    pub(crate) brokered: Brokered,
    /// The workspace's, and not your own
    #[arg(long)]
    pub(crate) for_workspace: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Image {
    /// Pull an image, so that no session waits for it
    #[command(after_help = "\
A name is registry/name:tag, registry/name@sha256:…, docker-archive:/file or oci-archive:/file.
Accounts are those of `pfsession registry login`, then Docker's own.

Examples:
  pfsession image pull ghcr.io/ann/flow:1
  pfsession image pull docker-archive:/tmp/flow.tar --json")]
    Pull {
        /// The image
        #[arg(value_name = "IMAGE")]
        image: String,
    },
    /// List the images of this machine, the last used first
    #[command(after_help = "\
Examples:
  pfsession image list
  pfsession image list --json | jq -r '.images[].digest'")]
    List,
    /// Print a Dockerfile that builds an image with the environment of a flow's session
    #[command(after_help = "\
It has every package with its version and its hashes, over the session's base image by its digest.
For what is deployed, build such an image: a session is for trying things out.

Examples:
  pfsession image dockerfile ./my-flow > Dockerfile
  pfsession image dockerfile ./my-flow | docker build -t ghcr.io/ann/flow:2 -")]
    Dockerfile {
        /// The flow's folder
        #[arg(value_name = "FLOW")]
        flow: std::path::PathBuf,
    },
    /// Remove an image; one that nobody has used for 30 days goes by itself
    #[command(after_help = "\
Examples:
  pfsession image remove ghcr.io/ann/flow:1
  pfsession image remove 6500ad6260af")]
    Remove {
        /// The image: a name, a digest, or how that begins
        #[arg(value_name = "IMAGE")]
        image: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Registry {
    /// Keep an account at a registry
    #[command(after_help = "\
The password or token is read from standard input, as a command line is seen by others.
It is kept in the state folder for you alone, and goes to this registry and its service for tokens.

Example:
  pfsession registry login ghcr.io --username ann < token.txt")]
    Login {
        /// The registry's host, with its port if it has one
        #[arg(value_name = "REGISTRY")]
        registry: String,
        /// The user
        #[arg(long, short)]
        username: String,
    },
    /// Forget the account at a registry
    #[command(after_help = "\
Example:
  pfsession registry logout ghcr.io")]
    Logout {
        /// The registry's host
        #[arg(value_name = "REGISTRY")]
        registry: String,
    },
    /// List the registries that have an account here
    #[command(after_help = "\
Example:
  pfsession registry list")]
    List,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Webhook {
    /// Add a rule: when this happens, do that with a flow's session
    #[command(after_help = "\
Prints the address to send to, and, once, the secret to sign with. What is not signed with it, too old or a repetition changes nothing. The rule is \
yours, and does what you may do. An install reads the flow's folder as it is: have it brought up to date before, or by the flow's own start.

Without --path, a push that is to install has to touch the flow's requirements, and another its folder; both by their place in the repository that \
the folder is in. `*` stands for any characters.

Examples:
  pfsession webhook add ./my-flow --on push --repository acme/flows --branch main --then install
  pfsession webhook add ./my-flow --on release --tag 'v*' --then run --data lines.jsonl
  pfsession webhook add ./my-flow --on deployment --environment production --then stop
  pfsession webhook add ./my-flow --kind standard-webhooks --from shop --on invoice.paid --then start")]
    Add(Box<AddWebhook>),
    /// List the rules
    #[command(after_help = "\
Examples:
  pfsession webhook list
  pfsession webhook list --json | jq -r '.rules[].name'")]
    List,
    /// Remove a rule
    #[command(after_help = "\
Example:
  pfsession webhook remove my-flow-push-install")]
    Remove {
        /// The rule's name, as `pfsession webhook list` shows it
        name: String,
    },
    /// Make a new secret for a sender; the one before it stays good until the next time
    #[command(after_help = "\
Example:
  pfsession webhook rotate github")]
    Rotate {
        /// The sender's name, as `pfsession webhook list` shows it
        sender: String,
    },
}

#[derive(Args, Debug)]
pub(crate) struct AddWebhook {
    /// The flow's folder
    #[arg(value_name = "FLOW")]
    pub(crate) flow: PathBuf,
    /// What happens: push, release, deployment, another of GitHub's events, or the type of a Standard Webhook
    #[arg(long, value_name = "EVENT", value_parser = event)]
    pub(crate) on: Event,
    /// What is done then
    #[arg(long, value_name = "COMMAND")]
    pub(crate) then: Then,
    /// Who sends it: the name of its secret, and the end of its address [default: github]
    #[arg(long, value_name = "SENDER", value_parser = rule_id)]
    pub(crate) from: Option<String>,
    /// How it is signed; GitHub's own events are GitHub's
    #[arg(long, value_name = "KIND")]
    pub(crate) kind: Option<Signs>,
    /// What the rule is called [default: made of the flow, the event and the command]
    #[arg(long, value_parser = rule_id)]
    pub(crate) name: Option<String>,
    /// A secret that the sender made itself, in a file, or - for standard input; without it, one is made
    #[arg(long, value_name = "FILE")]
    pub(crate) secret_file: Option<PathBuf>,
    /// Only of this repository: owner/name
    #[arg(long, help_heading = "Which of them")]
    pub(crate) repository: Option<String>,
    /// Only of this branch
    #[arg(long, help_heading = "Which of them")]
    pub(crate) branch: Option<String>,
    /// Only of this tag
    #[arg(long, help_heading = "Which of them")]
    pub(crate) tag: Option<String>,
    /// Only of this deployment environment
    #[arg(long, help_heading = "Which of them")]
    pub(crate) environment: Option<String>,
    /// Only if it touches this file or folder of the repository; may be given again
    #[arg(long, value_name = "PATH", help_heading = "Which of them")]
    pub(crate) path: Vec<String>,
    /// For --then run: run over each line of this file of JSON lines
    #[arg(long, value_name = "FILE", help_heading = "The run")]
    pub(crate) data: Option<PathBuf>,
    /// For --then run: a value of an input: NAME=TEXT or NAME:=JSON
    #[arg(long, value_name = "NAME=VALUE", value_parser = named_value, num_args = 1.., help_heading = "The run")]
    pub(crate) inputs: Vec<(String, serde_json::Value)>,
    #[command(flatten)]
    pub(crate) wants: Wants,
}

/// The event of a webhook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// One whose name is GitHub's.
    Github(String),
    Other(String),
}

impl Event {
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Github(name) | Self::Other(name) => name,
        }
    }
}

/// What a webhook has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Then {
    Install,
    Start,
    Reset,
    Stop,
    Run,
}

impl Then {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Install => "install",
            Self::Start => "start",
            Self::Reset => "reset",
            Self::Stop => "stop",
            Self::Run => "run",
        }
    }
}

/// How a webhook is signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Signs {
    Github,
    StandardWebhooks,
}

impl From<Signs> for contract::webhook::SenderKind {
    fn from(signs: Signs) -> Self {
        match signs {
            Signs::Github => Self::Github,
            Signs::StandardWebhooks => Self::StandardWebhooks,
        }
    }
}

/// Whose token, and what they may do.
#[derive(Args, Debug)]
pub(crate) struct Token {
    /// The file with the issuer's key
    #[arg(long, value_name = "FILE")]
    pub(crate) issuer: PathBuf,
    /// Print the issuer's public key instead
    #[arg(long, conflicts_with = "user")]
    pub(crate) public: bool,
    /// The user's name
    #[arg(
        long,
        value_name = "NAME",
        required_unless_present = "public",
        requires = "workspace"
    )]
    pub(crate) user: Option<String>,
    /// What they may do there: data-scientist has sessions of their own, owner also sees and stops those of others
    #[arg(long = "role", value_enum, value_name = "ROLE", default_value = "data-scientist")]
    pub(crate) roles: Vec<TokenRole>,
    /// How long it is good, such as 8h or 30days
    #[arg(long = "for", value_name = "TIME", default_value = "12h", value_parser = humantime::parse_duration)]
    pub(crate) life: std::time::Duration,
}

/// A role of a workspace.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(crate) enum TokenRole {
    DataScientist,
    Owner,
    RoleAdministrator,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Role {
    /// Give a user a role
    #[command(after_help = "\
A role counts from the user's next command on, also with a token that they have. It is added to what their token says. Roles: data-scientist has \
sessions of its own; owner sees and stops everybody's, and may do all that is here; role-administrator assigns roles and nothing else; \
managed-identity-operator has sessions work with one identity.

Examples:
  pfsession role assign bob data-scientist
  pfsession role assign bob managed-identity-operator --identity arn:aws:iam::123456789012:role/flows")]
    Assign(AssignRole),
    /// List who was given which role
    #[command(after_help = "\
Examples:
  pfsession role list
  pfsession role list --json | jq -r '.users[] | select(.roles | index(\"owner\")).user'")]
    List,
    /// Take a role from a user, or all of them
    #[command(after_help = "\
It counts from the user's next command on, also with a token that they have. From then on the user has the roles that were assigned here, and none \
that a token says. Sessions that they have go on until they are stopped, or nobody uses them.

Examples:
  pfsession role revoke bob                     all roles
  pfsession role revoke bob owner
  pfsession role revoke bob managed-identity-operator --identity arn:aws:iam::123456789012:role/flows")]
    Revoke(RevokeRole),
}

#[derive(Args, Debug)]
pub(crate) struct AssignRole {
    /// The user: the subject of their token, or the id that a queue's messages of theirs have
    #[arg(value_parser = user_name)]
    pub(crate) user: String,
    /// The role
    pub(crate) role: AnyRole,
    /// The identity that the role managed-identity-operator is about
    #[arg(long, value_name = "IDENTITY", required_if_eq("role", "managed-identity-operator"))]
    pub(crate) identity: Option<String>,
}

#[derive(Args, Debug)]
pub(crate) struct RevokeRole {
    /// The user
    #[arg(value_parser = user_name)]
    pub(crate) user: String,
    /// The role [default: all of them]
    pub(crate) role: Option<AnyRole>,
    /// The identity that the role managed-identity-operator is about [default: all of them]
    #[arg(long, value_name = "IDENTITY", requires = "role")]
    pub(crate) identity: Option<String>,
}

/// A role that is assigned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum AnyRole {
    DataScientist,
    Owner,
    RoleAdministrator,
    ManagedIdentityOperator,
}

fn extra(text: &str) -> Result<String, String> {
    let is_of_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    match !text.is_empty() && text.bytes().all(is_of_name) {
        true => Ok(text.to_owned()),
        false => Err("an extra has letters, digits, dashes, underscores and dots".to_owned()),
    }
}

fn user_name(text: &str) -> Result<String, String> {
    if contract::is_name(text) {
        Ok(text.to_owned())
    } else {
        Err("a user's name is one line of 1 to 100 characters, without #".into())
    }
}

/// The flow's folder and what its session is to be made of.
#[derive(Args, Debug)]
pub(crate) struct Start {
    /// The flow's folder
    #[arg(value_name = "FLOW")]
    pub(crate) flow: PathBuf,
    /// Do not wait for the end; print the operation's id
    #[arg(long)]
    pub(crate) no_wait: bool,
    #[command(flatten)]
    pub(crate) wants: Wants,
}

#[derive(Args, Debug)]
pub(crate) struct Install {
    /// The flow's folder
    #[arg(value_name = "FLOW")]
    pub(crate) flow: PathBuf,
    /// Save this in the flow's requirements first, in place of a line that names the same package: humanize, 'flask<4'
    #[arg(value_name = "PACKAGE")]
    pub(crate) packages: Vec<String>,
    /// An extra of the folder's own project, whose packages are installed from here on: it is saved in the requirements as -e .[NAME]
    #[arg(long = "extra", value_name = "NAME", value_parser = extra, conflicts_with = "packages")]
    pub(crate) extras: Vec<String>,
    /// Only save: install nothing
    #[arg(long)]
    pub(crate) save_only: bool,
    /// Go back to the packages before the last install
    #[arg(long, conflicts_with_all = ["packages", "extras", "save_only"])]
    pub(crate) rollback: bool,
    /// Do not wait for the end; print the operation's id
    #[arg(long)]
    pub(crate) no_wait: bool,
    #[command(flatten)]
    pub(crate) wants: Wants,
}

#[derive(Args, Debug)]
pub(crate) struct Reset {
    /// The flow's folder
    #[arg(value_name = "FLOW")]
    pub(crate) flow: PathBuf,
    /// Resolve the flow's requirements anew, in place of the packages that it had
    #[arg(long)]
    pub(crate) resolve: bool,
    /// Do not wait for the end; print the operation's id
    #[arg(long)]
    pub(crate) no_wait: bool,
    #[command(flatten)]
    pub(crate) yes: Yes,
    #[command(flatten)]
    pub(crate) wants: Wants,
}

#[derive(Args, Debug)]
pub(crate) struct Update {
    /// The flow's folder, or the start of a session's key
    #[arg(value_name = "FLOW")]
    pub(crate) what: String,
    /// Do not wait for the end; print the operation's id
    #[arg(long)]
    pub(crate) no_wait: bool,
    #[command(flatten)]
    pub(crate) yes: Yes,
    #[command(flatten)]
    pub(crate) wants: Wants,
}

#[derive(Args, Debug)]
pub(crate) struct Packages {
    /// The flow's folder, or the start of its session's key
    #[arg(value_name = "FLOW", default_value = ".")]
    pub(crate) what: String,
    /// List the installs: when, by which operation, and what each changed
    #[arg(long)]
    pub(crate) history: bool,
    /// Compare two installs, by number or lock; one is compared with now, none is the last with the one before
    #[arg(long, value_name = "INSTALL", num_args = 0..=2, conflicts_with = "history")]
    pub(crate) diff: Option<Vec<String>>,
}

#[derive(Args, Debug)]
pub(crate) struct Stop {
    /// The flow's folder, or the start of a session's key
    #[arg(value_name = "FLOW")]
    pub(crate) what: String,
    /// Do not wait for the end; print the operation's id
    #[arg(long)]
    pub(crate) no_wait: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Workspace {
    /// Show the settings
    #[command(after_help = "\
Examples:
  pfsession workspace show
  pfsession workspace show --json | jq '.settings.quota'")]
    Show,
    /// Change the settings as a file says; this needs the role owner
    #[command(after_help = "\
What the file names replaces what there is; what is null in it is taken away; the rest stays. The settings count from the next command on, and a \
session that is there keeps what it has. Of each setting that a command, run.yml and the flow's file leave out, the workspace's default counts.

A file may have:
  default_vm_size: Standard_D4s_v5
  default_base_image: promptflow:3.12
  largest_idle_seconds: 7200
  default_data_store: { name: workspaceblobstore, type: azure_blob }    or azure_data_lake_gen2, s3
  working_directory: /srv/workspaceworkingdirectory
  quota:                                  of each user at once
    sessions: 5
    vcpus: { D: 16, NC: 0 }               by family of VM sizes: pfsession sizes
    users:
      bob: { sessions: 10 }
  identity:
    type: system_assigned, user_assigned
    user_assigned_identities:
      '<resource id or ARN>': { client_id: <another name of it> }
  primary_user_assigned_identity: '<resource id or ARN>'     without it, the first

Examples:
  pfsession workspace update -f workspace.yml")]
    Update {
        /// The file of settings
        #[arg(long, short, value_name = "FILE")]
        file: PathBuf,
    },
}

/// The start that is checked.
#[derive(Args, Debug)]
pub(crate) struct Check {
    /// The flow's folder
    #[arg(value_name = "FLOW", default_value = ".")]
    pub(crate) flow: PathBuf,
    #[command(flatten)]
    pub(crate) wants: Wants,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Identity {
    /// List the user-assigned identities of the workspace
    #[command(after_help = "\
Example:
  pfsession identity list")]
    List,
    /// List the permissions that an identity needs, each held, lacking or not checkable here
    #[command(after_help = "\
Whether you may assign the identity is this service's to say; the other permissions are those of the specification, and the cloud's.

Examples:
  pfsession identity check
  pfsession identity check flows-reader")]
    Check {
        /// The identity: its id, the last part of it, or its client id; without it, the primary one
        name: Option<String>,
    },
}

/// Which VM sizes.
#[derive(Args, Debug)]
pub(crate) struct Sizes {
    /// A series, a family, or the beginning of a name; without it, all of them
    #[arg(value_name = "SERIES")]
    pub(crate) what: Option<String>,
    /// Those that have a GPU
    #[arg(long)]
    pub(crate) gpu: bool,
}

#[derive(Args, Debug)]
pub(crate) struct StopSession {
    #[command(flatten)]
    pub(crate) stop: Stop,
    #[command(flatten)]
    pub(crate) yes: Yes,
}

/// Whether work under way may end.
#[derive(Args, Debug)]
pub(crate) struct Yes {
    /// Do not ask whether active runs may end
    #[arg(long)]
    pub(crate) yes: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Instance {
    /// Create a compute instance, and start it
    #[command(after_help = "\
Its VM size and identity are those of each session on it, and cannot be changed. It runs until you stop it, or until nobody used it for the time of \
--idle-shutdown: no start, no run and no other use of a session on it. While it runs, it counts in your quota of vCPUs.

Examples:
  pfsession instance create dev --idle-shutdown 1h
  pfsession instance create big --size Standard_D8s_v5
  pfsession start ./my-flow --compute dev")]
    Create(CreateInstance),
    /// List your compute instances
    #[command(after_help = "\
Examples:
  pfsession instance list
  pfsession instance list --json | jq -r '.instances[].name'")]
    List,
    /// Show a compute instance, and the active flows and runs on it
    #[command(after_help = "\
Example:
  pfsession instance show dev")]
    Show {
        /// Its name
        name: String,
    },
    /// Start a compute instance that is stopped
    #[command(after_help = "\
Example:
  pfsession instance start dev")]
    Start {
        /// Its name
        name: String,
    },
    /// Stop a compute instance with all sessions on it, whose runs end as canceled
    #[command(after_help = "\
It shows what ends, and asks. Where there is no terminal to ask at, and a session is on it, it does nothing without --yes.

Examples:
  pfsession instance stop dev
  pfsession instance stop dev --yes")]
    Stop(EndInstance),
    /// Delete a compute instance; one that runs is stopped first
    #[command(after_help = "\
Example:
  pfsession instance delete dev --yes")]
    Delete(EndInstance),
}

#[derive(Args, Debug)]
pub(crate) struct CreateInstance {
    /// Its name: letters, digits, - and _
    #[arg(value_parser = instance_name)]
    pub(crate) name: String,
    /// The VM size [default: local, all of the machine]
    #[arg(long, value_name = "NAME")]
    pub(crate) size: Option<String>,
    /// The user-assigned identity that sessions on it act as, in place of yours
    #[arg(long, value_name = "ID")]
    pub(crate) identity: Option<String>,
    /// Shut it down, with all sessions on it, when nobody used it for this long: 30m, 1h [default: never]
    #[arg(long, value_name = "TIME", value_parser = idle)]
    pub(crate) idle_shutdown: Option<IdleSeconds>,
}

#[derive(Args, Debug)]
pub(crate) struct EndInstance {
    /// Its name
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) yes: Yes,
}

fn instance_name(text: &str) -> Result<String, String> {
    match text {
        contract::command::SERVERLESS => Err("serverless compute has this name".into()),
        name if contract::command::is_good_id(name) => Ok(name.into()),
        _ => Err("a name is 1 to 80 characters of A-Z a-z 0-9 - _".into()),
    }
}

/// The type of a compute resource.
#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
pub(crate) enum ComputeType {
    Serverless,
    Instance,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Compute {
    /// List the compute resources that have sessions
    #[command(after_help = "\
Examples:
  pfsession compute list
  pfsession compute list --all-users
  pfsession compute list --json | jq -r '.computes[] | .id, .sessions[].flow.lineage'")]
    List {
        /// Those of everybody in the workspace; this needs the role owner
        #[arg(long)]
        all_users: bool,
    },
    /// Show a compute resource: its VM size and identity, its active flows and runs
    #[command(after_help = "\
Examples:
  pfsession compute show 5b1f03a2
  pfsession compute show 5b1f03a2 --json | jq -r '.sessions[].runs[]'")]
    Show {
        /// The start of its id, as `pfsession compute list` shows it
        compute: String,
    },
    /// Delete a compute resource: stop all sessions on it, and end their runs as canceled
    #[command(
        visible_alias = "release",
        after_help = "\
It shows what ends, and asks. Where there is no terminal to ask at, it does nothing without --yes. Once the deletion is decided it is carried out, \
also if this command or the service ends meanwhile; a session that is started again gets another compute resource.

Examples:
  pfsession compute delete 5b1f03a2
  pfsession compute release 5b1f03a2 --yes"
    )]
    Delete(DeleteCompute),
}

#[derive(Args, Debug)]
pub(crate) struct DeleteCompute {
    /// The start of its id, as `pfsession compute list` shows it
    pub(crate) compute: String,
    /// Do not wait for the end
    #[arg(long)]
    pub(crate) no_wait: bool,
    #[command(flatten)]
    pub(crate) yes: Yes,
}

/// The settings of a session.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "The session")]
pub(crate) struct Wants {
    /// Delete the session when it was not used for this long: 90s, 30m, 1h [default: 1h]
    #[arg(long, value_name = "TIME", value_parser = idle)]
    pub(crate) idle: Option<IdleSeconds>,
    /// The VM size: how much processor and memory it may use, by Azure's or EC2's names, as `pfsession sizes` lists them [default: local, all of the machine]
    #[arg(long, value_name = "NAME")]
    pub(crate) size: Option<String>,
    /// The compute instance that the session is on; it has its own VM size and identity
    #[arg(long, value_name = "INSTANCE", value_parser = instance_name, conflicts_with_all = ["size", "identity"])]
    pub(crate) compute: Option<String>,
    /// The type of compute resource [default: serverless, or instance with --compute]
    #[arg(long, value_name = "TYPE", requires_if("instance", "compute"))]
    pub(crate) compute_type: Option<ComputeType>,
    /// The base image, in place of the flow's own
    #[arg(long, value_name = "NAME")]
    pub(crate) image: Option<String>,
    /// The user-assigned identity that the session acts as, in place of yours
    #[arg(long, value_name = "ID")]
    pub(crate) identity: Option<String>,
    /// Which network it has: the internet without this machine's and private addresses; this machine's own; or none [default: internet]
    #[arg(long, value_name = "NETWORK")]
    pub(crate) network: Option<Network>,
    /// A host that it may reach whatever the network is: api.example.org:443, *.example.org, 10.1.0.0/16, 127.0.0.1:8080. All that are named
    /// take the place of those before; `none` is no host
    #[arg(long = "allow-host", value_name = "HOST", value_parser = host)]
    pub(crate) allow_hosts: Vec<String>,
}

/// A flow that is asked more than once.
#[derive(Args, Debug)]
pub(crate) struct Asked {
    /// The flow's folder, or its file (YAML or prompty)
    pub(crate) flow: PathBuf,
    /// A variant of a node: '${node.variant}'
    #[arg(long)]
    pub(crate) variant: Option<String>,
    /// An environment variable; '${connection.key}' is a connection's value. It is stored: never put a secret here
    #[arg(long, value_name = "NAME=TEXT", value_parser = named_text, num_args = 1..)]
    pub(crate) env: Vec<(String, String)>,
    /// For a node, another connection, deployment or model: node.connection=NAME node.deployment_name=TEXT
    #[arg(long, value_name = "NODE.KEY=TEXT", value_parser = of_a_node, num_args = 1..)]
    pub(crate) connections: Vec<(String, String, String)>,
    /// An argument of a class-based flow's constructor: NAME=TEXT or NAME:=JSON
    #[arg(long, value_name = "NAME=VALUE", value_parser = named_value, num_args = 1..)]
    pub(crate) init: Vec<(String, serde_json::Value)>,
    #[command(flatten)]
    pub(crate) wants: Wants,
}

impl Asked {
    /// The run that each time is one of.
    pub(crate) fn as_run(&self) -> Run {
        Run {
            flow: Some(self.flow.clone()),
            resume_from: None,
            data: None,
            run: None,
            entry: None,
            workers: None,
            line_timeout: None,
            inputs: Vec::new(),
            column_mapping: Vec::new(),
            variant: self.variant.clone(),
            env: self.env.clone(),
            env_secret: Vec::new(),
            connections: self.connections.clone(),
            init: self.init.clone(),
            name: None,
            no_wait: false,
            stream: false,
            install: false,
            wants: self.wants.clone(),
            command: Vec::new(),
        }
    }
}

#[derive(Args, Debug)]
pub(crate) struct Chat {
    #[command(flatten)]
    pub(crate) asked: Asked,
    /// The input that you say, if the flow's file marks none
    #[arg(long, value_name = "NAME")]
    pub(crate) chat_input: Option<String>,
    /// A value of another input: NAME=TEXT or NAME:=JSON
    #[arg(long, value_name = "NAME=VALUE", value_parser = named_value, num_args = 1..)]
    pub(crate) inputs: Vec<(String, serde_json::Value)>,
}

#[derive(Args, Debug)]
pub(crate) struct Serve {
    #[command(flatten)]
    pub(crate) asked: Asked,
    /// The port of 127.0.0.1; without it, a free one
    #[arg(long, default_value_t = 0, hide_default_value = true)]
    pub(crate) port: u16,
}

#[derive(Args, Debug)]
pub(crate) struct Run {
    /// The flow's folder, its file (YAML or prompty), or a run.yml that names it
    #[arg(value_name = "FLOW or RUN.YML", required_unless_present = "resume_from")]
    pub(crate) flow: Option<PathBuf>,
    /// Run over each row of a file (JSON lines, JSON, CSV, TSV), or of a folder's files; without it, once
    #[arg(long, value_name = "FILE")]
    pub(crate) data: Option<PathBuf>,
    /// An earlier run that the column mapping names: '${run.outputs.answer}', '${run.inputs.question}'
    #[arg(long, value_name = "RUN", value_parser = run_id)]
    pub(crate) run: Option<String>,
    /// Run an earlier run again, with its flow, data and settings; lines that it has completed are taken over, and not run
    #[arg(
        long,
        value_name = "RUN",
        value_parser = run_id,
        conflicts_with_all = ["flow", "data", "run", "entry", "inputs", "column_mapping", "variant", "init", "connections", "command"]
    )]
    pub(crate) resume_from: Option<String>,
    /// The function or class of a flex flow without a file: module:name
    #[arg(long, value_name = "MODULE:NAME")]
    pub(crate) entry: Option<String>,
    /// How many lines run at once; without it, four, and more while the processor is idle
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=256))]
    pub(crate) workers: Option<u32>,
    /// How long one line may take, in seconds [default: 600]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) line_timeout: Option<u32>,
    /// A value of an input, when there is no data: NAME=TEXT or NAME:=JSON
    #[arg(long, value_name = "NAME=VALUE", value_parser = named_value, num_args = 1..)]
    pub(crate) inputs: Vec<(String, serde_json::Value)>,
    /// Where an input comes from: NAME='${data.column}'; without it, its default or the column of its name
    #[arg(long, value_name = "NAME=SOURCE", value_parser = named_text, num_args = 1..)]
    pub(crate) column_mapping: Vec<(String, String)>,
    /// A variant of a node: '${node.variant}'
    #[arg(long)]
    pub(crate) variant: Option<String>,
    /// An environment variable for this run; '${connection.key}' is a connection's value. It is stored: never put a secret here
    #[arg(long, value_name = "NAME=TEXT", value_parser = named_text, num_args = 1..)]
    pub(crate) env: Vec<(String, String)>,
    /// A secret environment variable for this run: from your own environment, else asked for. It is stored nowhere
    #[arg(long, value_name = "NAME", value_parser = variable)]
    pub(crate) env_secret: Vec<String>,
    /// For a node, another connection, deployment or model: node.connection=NAME node.deployment_name=TEXT
    #[arg(long, value_name = "NODE.KEY=TEXT", value_parser = of_a_node, num_args = 1.., conflicts_with = "command")]
    pub(crate) connections: Vec<(String, String, String)>,
    /// An argument of a class-based flow's constructor: NAME=TEXT or NAME:=JSON
    #[arg(long, value_name = "NAME=VALUE", value_parser = named_value, num_args = 1..)]
    pub(crate) init: Vec<(String, serde_json::Value)>,
    /// The run's id; one that is taken is an error, unless the run is the same
    #[arg(long, value_name = "ID", value_parser = run_id)]
    pub(crate) name: Option<String>,
    /// Do not wait for the end; print the run's id
    #[arg(long)]
    pub(crate) no_wait: bool,
    /// Show what the flow gives in pieces as it comes, on standard error; it runs once, without --data
    #[arg(long, conflicts_with_all = ["data", "run", "resume_from", "no_wait", "command"])]
    pub(crate) stream: bool,
    /// First install what the requirements say, if they have changed since the last install
    #[arg(long)]
    pub(crate) install: bool,
    #[command(flatten)]
    pub(crate) wants: Wants,
    /// Run this program in the folder in place of a flow: its output and exit code are passed on
    #[arg(
        last = true,
        value_name = "COMMAND",
        conflicts_with_all = ["data", "run", "entry", "workers", "line_timeout", "inputs", "column_mapping", "variant", "init"]
    )]
    pub(crate) command: Vec<String>,
}

/// What the service on this machine is started with.
#[derive(Args, Debug)]
pub(crate) struct Host {
    /// Leave after this many seconds without a session
    #[arg(long, value_name = "SECONDS")]
    pub(crate) idle_exit: Option<u64>,
    /// Listen on this port of 127.0.0.1; without it, a free one
    #[arg(long)]
    pub(crate) port: Option<u16>,
    #[command(flatten)]
    pub(crate) trial: Trial,
}

/// What tests of the service set.
#[derive(Args, Debug)]
pub(crate) struct Trial {
    /// Faults to inject: seed=1,duplicate=0.1,kill-host@queue.sent=3
    #[arg(long, env = "PFSESSION_FAULTS", hide = true, value_name = "PLAN")]
    pub(crate) faults: Option<String>,
    /// Where the functions' own binaries are; without it, this file is all of them
    #[arg(long, env = "PFSESSION_FUNCTIONS", hide = true, value_name = "FOLDER")]
    pub(crate) functions: Option<PathBuf>,
}

/// Prints the completions of a shell.
pub(crate) fn completions(shell: clap_complete::Shell) {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "pfsession", &mut text);
    crate::text::out_text(&text);
}

/// Prints the manual page; with a folder, writes it and those of all commands into it.
pub(crate) fn manual(folder: Option<&Path>) -> std::io::Result<()> {
    match folder {
        Some(folder) => {
            std::fs::create_dir_all(folder)?;
            clap_mangen::generate_to(Cli::command(), folder)
        }
        None => {
            let mut text = Vec::new();
            clap_mangen::Man::new(Cli::command()).render(&mut text)?;
            crate::text::out_text(&text);
            Ok(())
        }
    }
}

/// `NAME=TEXT`.
fn named_text(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.into(), value.into())),
        _ => Err("this is to be NAME=TEXT".into()),
    }
}

/// The name of an environment variable.
fn variable(text: &str) -> Result<String, String> {
    match text {
        "" => Err("this is to be the name of a variable".into()),
        text if text.contains(['=', '\0']) => {
            Err("this is to be a name alone: the value comes from your environment or standard input".into())
        }
        text => Ok(text.into()),
    }
}

/// `NODE.KEY=TEXT`.
fn of_a_node(text: &str) -> Result<(String, String, String), String> {
    let (place, value) = named_text(text)?;
    match place.split_once('.') {
        Some((node, key)) if !node.is_empty() && !key.is_empty() => Ok((node.into(), key.into(), value)),
        _ => Err("this is to be NODE.KEY=TEXT".into()),
    }
}

/// `NAME=TEXT` or `NAME:=JSON`. Text stays text: the flow's own types say what it becomes.
fn named_value(text: &str) -> Result<(String, serde_json::Value), String> {
    let (name, value) = text.split_once('=').ok_or("this is to be NAME=TEXT or NAME:=JSON")?;
    let (name, value) = match name.strip_suffix(':') {
        Some(name) => (
            name,
            serde_json::from_str(value).map_err(|e| format!("what follows := is not JSON: {e}"))?,
        ),
        None => (name, value.into()),
    };
    if name.is_empty() {
        Err("there is no name before the =".into())
    } else {
        Ok((name.into(), value))
    }
}

/// The name of an event, and whether it is GitHub's by its name alone.
fn event(text: &str) -> Result<Event, String> {
    let name = text.split('.').next().unwrap_or_default();
    match name {
        "" => Err("this is to be the name of an event, such as push".into()),
        "push" | "release" | "deployment" | "deployment_status" | "workflow_run" => Ok(Event::Github(text.into())),
        _ => Ok(Event::Other(text.into())),
    }
}

/// The name of a rule or of a sender.
fn rule_id(text: &str) -> Result<String, String> {
    if contract::command::is_good_id(text) {
        Ok(text.into())
    } else {
        Err("a name has 1 to 80 characters of A-Z a-z 0-9 - _".into())
    }
}

/// A time such as `90s`, `30m` or `1h`, in seconds, within what a session's idle time may be.
fn idle(text: &str) -> Result<IdleSeconds, String> {
    let time = humantime::parse_duration(text).map_err(|_| "a time is a number and a unit, such as 90s, 30m or 1h")?;
    time.as_secs().try_into()
}

/// Which network a session has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Network {
    None,
    Internet,
    Open,
}

impl From<Network> for lifecycle::network::Network {
    fn from(network: Network) -> Self {
        match network {
            Network::None => Self::None,
            Network::Internet => Self::Internet,
            Network::Open => Self::Open,
        }
    }
}

/// What stands for an empty list of hosts.
const NO_HOST: &str = "none";

/// A host that may be reached, as it is stored.
fn host(text: &str) -> Result<String, String> {
    match text.parse::<lifecycle::network::Host>() {
        Ok(host) => Ok(host.to_string()),
        Err(_) => Err(format!("a host is {}", lifecycle::network::HOST)),
    }
}

impl Wants {
    /// The hosts that were named: `None` if nothing was said of them.
    pub(crate) fn allow_hosts(&self) -> Option<Vec<String>> {
        let named = self
            .allow_hosts
            .iter()
            .filter(|host| *host != NO_HOST)
            .cloned()
            .collect();
        (!self.allow_hosts.is_empty()).then_some(named)
    }
}

/// The id of a run leaves room for the name of the start that it may cause.
pub(crate) fn run_id(text: &str) -> Result<String, String> {
    if contract::command::is_good_id(text) && text.len() <= 70 {
        Ok(text.into())
    } else {
        Err("an id has 1 to 70 characters of A-Z a-z 0-9 - _".into())
    }
}

/// What `pfsession bench` is told.
#[derive(Args, Debug)]
pub(crate) struct Bench {
    /// How often each thing is done
    #[arg(long, value_name = "N", default_value_t = 15)]
    pub(crate) rounds: usize,
    /// How many sessions are started, run in and stopped at once at the end; 0 for none
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u8).range(0..=50))]
    pub(crate) at_once: u8,
    /// A state folder whose tables are in it as they are, beside which is measured; it is kept
    #[arg(long = "in", value_name = "FOLDER", hide = true)]
    pub(crate) within: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect_file;
    use serde_json::json;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_help_of_each_command_is_as_reviewed() {
        // The same width and no variables of whoever runs the tests.
        let mut command = Cli::command().term_width(110).mut_args(|arg| arg.hide_env_values(true));
        command.build();
        expect_file!["../tests/help/pfsession.txt"].assert_eq(&command.render_long_help().to_string());
        let names: Vec<_> = command
            .get_subcommands()
            .filter(|c| !c.is_hide_set())
            .map(|c| c.get_name().to_owned())
            .collect();
        for name in names.iter().filter(|name| *name != "help") {
            let below = command.find_subcommand_mut(name).unwrap();
            expect_file![format!("../tests/help/{name}.txt")].assert_eq(&below.render_long_help().to_string());
            let names: Vec<_> = below.get_subcommands().map(|c| c.get_name().to_owned()).collect();
            for inner in names.iter().filter(|name| *name != "help") {
                let help = below.find_subcommand_mut(inner).unwrap().render_long_help().to_string();
                expect_file![format!("../tests/help/{name}-{inner}.txt")].assert_eq(&help);
            }
        }
    }

    #[test]
    fn each_shell_gets_completions_and_each_command_a_page() {
        use clap_complete::Shell;
        for (shell, mark) in [
            (Shell::Bash, "complete -F"),
            (Shell::Zsh, "#compdef"),
            (Shell::Fish, "complete -c"),
        ] {
            let mut written = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "pfsession", &mut written);
            let text = String::from_utf8(written).unwrap();
            assert!(text.contains(mark) && text.contains("column-mapping"), "{shell}");
        }
        let folder = tempfile::tempdir().unwrap();
        manual(Some(folder.path())).unwrap();
        for page in ["pfsession.1", "pfsession-run.1", "pfsession-webhook-add.1"] {
            let text = std::fs::read_to_string(folder.path().join(page)).unwrap_or_else(|e| panic!("{page}: {e}"));
            assert!(text.starts_with(".ie") && text.contains("Examples"), "{page}");
        }
    }

    #[test]
    fn text_stays_text_and_json_is_asked_for() {
        assert_eq!(named_value("a=1"), Ok(("a".into(), json!("1"))));
        assert_eq!(named_value("a:=1"), Ok(("a".into(), json!(1))));
        assert_eq!(
            named_value("url=http://x/?a:=b"),
            Ok(("url".into(), json!("http://x/?a:=b")))
        );
        assert_eq!(named_value("a="), Ok(("a".into(), json!(""))));
        for wrong in ["a", "=1", ":=1", "a:={"] {
            assert!(named_value(wrong).is_err(), "{wrong}");
        }
        assert_eq!(named_text("q=${data.a=b}"), Ok(("q".into(), "${data.a=b}".into())));
    }

    #[test]
    fn an_idle_time_has_a_unit_and_is_within_a_minute_and_a_day() {
        assert_eq!(
            [idle("90s"), idle("30m"), idle("1h"), idle("24h")],
            [90, 1800, 3600, 86_400].map(IdleSeconds::try_from)
        );
        for wrong in ["", "30", "59s", "25h", "-1m", "soon"] {
            assert!(idle(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_token_without_an_endpoint_is_fine_and_an_endpoint_without_a_token_is_not() {
        assert!(Cli::try_parse_from(["pfsession", "--token", "t", "list"]).is_ok());
        assert!(
            Cli::try_parse_from(["pfsession", "list", "--endpoint", "http://x"]).is_err()
                || std::env::var_os("PFSESSION_TOKEN").is_some()
        );
    }
}
