//! The command line.

use crate::{
    command::{Dispatch, family},
    commands::{
        bench, chat, check, completions, compute, connection, down, driver, env, events, extend, host, identity, image,
        install, instance, list, logs, man, migrate, move_flow, packages, private, registry, reset, role, run, runs,
        schema, serve, show, sizes, start, stop, token, up, update, webhook, why, workspace,
    },
    global::{Done, Global, Service},
};
use clap::{CommandFactory, Parser};

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
  0    success
  1    the operation or the run failed, or some lines of the run did; of a command that was run, its own exit code
  2    bad usage, or an argument names something that does not exist
  3    the service cannot be reached or started
  4    there is no such session, operation or run
  130  interrupted; operations that have begun go on";

/// The whole command line.
#[derive(Debug, Parser)]
#[command(name = "pfsession", version, about = ABOUT, long_about = LONG_ABOUT, after_help = AFTER)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    command: Command,
}

family! {
    /// The commands.
    Command {
        Run(Box<run::Run>),
        Chat(Box<chat::Chat>),
        Serve(Box<serve::Serve>),
        Start(start::Start),
        Update(update::Update),
        Extend(extend::Extend),
        Stop(stop::Stop),
        Install(install::Install),
        Packages(packages::Packages),
        Reset(reset::Reset),
        Move(move_flow::Move),
        List(list::List),
        Show(show::Show),
        Why(why::Why),
        Logs(logs::Logs),
        #[command(subcommand)]
        Runs(runs::Runs),
        Events(events::Events),
        Private(private::Private),
        #[command(subcommand)]
        Image(image::Image),
        #[command(subcommand)]
        Registry(registry::Registry),
        #[command(subcommand)]
        Connection(connection::Connection),
        Up(up::Up),
        Down(down::Down),
        #[command(subcommand)]
        Webhook(webhook::Webhook),
        Sizes(sizes::Sizes),
        Check(check::Check),
        #[command(subcommand)]
        Identity(identity::Identity),
        Migrate(migrate::Migrate),
        #[command(subcommand)]
        Workspace(workspace::Workspace),
        #[command(subcommand)]
        Instance(instance::Instance),
        #[command(subcommand)]
        Compute(compute::Compute),
        #[command(subcommand)]
        Role(role::Role),
        Env(env::Env),
        Driver(driver::Driver),
        Token(token::Token),
        Completions(completions::Completions),
        Bench(bench::Bench),
        Man(man::Man),
        Schema(schema::Schema),
        Host(host::Host),
    }
}

/// Executes a command. Returns its exit code.
pub(crate) fn execute(cli: &Cli) -> Done {
    let service = Service {
        global: &cli.global,
        command_line: Cli::command,
        schemas: Command::schemas,
    };
    cli.command.dispatch(&service)
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{expect, expect_file};

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
        man::manual(Cli::command(), Some(folder.path())).unwrap();
        for page in ["pfsession.1", "pfsession-run.1", "pfsession-webhook-add.1"] {
            let text = std::fs::read_to_string(folder.path().join(page)).unwrap_or_else(|e| panic!("{page}: {e}"));
            assert!(text.starts_with(".ie") && text.contains("Examples"), "{page}");
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

    #[test]
    fn each_command_has_a_json_schema_but_those_that_print_none() {
        let all = schema::find_schemas(&Cli::command(), &Command::schemas(), &[]);
        let without: Vec<&str> = all
            .iter()
            .filter(|(_, schema)| schema().is_none())
            .map(|(name, _)| name.as_str())
            .collect();
        expect!["registry login, registry logout, connection delete, down, webhook remove, completions, man, host"]
            .assert_eq(&without.join(", "));
        let of = |name: &str| all.iter().find(|(known, _)| known == name).unwrap().1().unwrap();
        assert_eq!(of("runs list")["title"], "Runs");
        assert_eq!(of("instance delete")["title"], "InstanceView");
    }
}
