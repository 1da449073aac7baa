//! One suite, three worlds: the adapters of `shared/aws` against our host, `ministack` and `moto`:
//! the same tests, the same answers.
//!
//! Where a world gives another answer, AWS's own documentation says which is right; a world that is
//! wrong is named beside the test, with how that was made sure, and is left out of it.

use aws::Aws;
use aws_sdk_sqs::types::{
    ChangeMessageVisibilityBatchRequestEntry, DeleteMessageBatchRequestEntry, QueueAttributeName::*,
    SendMessageBatchRequestEntry,
};
use contract::{
    Code, Failure, FlowRef, Millis, Phase, Settings, Slot,
    agent::{LineKind, OutputLine, RunResult},
    command::{Command, RunWish, Wish},
    instance::InstanceRow,
    names,
    row::{LogRow, OperationEnd, OperationRow, OperationStatus, RunEnd, RunRow, RunStatus, SessionRow},
};
use lifecycle::{
    compute::{self, Compute, ComputePhase},
    quota::{Quota, Usage, Use},
    session::{Event, Kind, Message, Session},
};
use on_aws::{
    Test,
    worlds::{World, Worlds},
};
use shell::{DueRow, Fault, Ports, Save, Write};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    process::ExitCode,
};

const TESTS: &[Test<Worlds>] = &[
    (
        "a_session_that_has_moved_on_is_a_conflict_and_nothing_of_the_transaction_is_written",
        a_session_that_has_moved_on_is_a_conflict_and_nothing_of_the_transaction_is_written,
    ),
    (
        "of_many_saves_at_once_exactly_one_is_done",
        of_many_saves_at_once_exactly_one_is_done,
    ),
    (
        "what_a_user_has_is_written_only_over_what_was_read",
        what_a_user_has_is_written_only_over_what_was_read,
    ),
    (
        "a_compute_instance_is_changed_only_over_what_was_read_and_has_one_slot_by_its_name",
        a_compute_instance_is_changed_only_over_what_was_read_and_has_one_slot_by_its_name,
    ),
    (
        "a_claim_is_good_only_on_what_was_read",
        a_claim_is_good_only_on_what_was_read,
    ),
    (
        "what_was_sent_leaves_the_outbox_and_nothing_else_does",
        what_was_sent_leaves_the_outbox_and_nothing_else_does,
    ),
    (
        "what_is_due_is_found_by_its_time_and_not_before",
        what_is_due_is_found_by_its_time_and_not_before,
    ),
    (
        "a_run_and_an_operation_are_accepted_started_and_ended_in_their_rows",
        a_run_and_an_operation_are_accepted_started_and_ended_in_their_rows,
    ),
    (
        "output_is_kept_once_and_read_in_order_and_so_is_history",
        output_is_kept_once_and_read_in_order_and_so_is_history,
    ),
    ("a_user_finds_their_own_sessions", a_user_finds_their_own_sessions),
    (
        "sessions_are_found_by_page_and_key_and_users_once_each_in_order",
        sessions_are_found_by_page_and_key_and_users_once_each_in_order,
    ),
    (
        "one_flows_commands_come_in_order_and_a_wish_that_is_sent_twice_comes_once",
        one_flows_commands_come_in_order_and_a_wish_that_is_sent_twice_comes_once,
    ),
    (
        "a_wish_that_was_done_is_the_same_wish_for_a_while",
        a_wish_that_was_done_is_the_same_wish_for_a_while,
    ),
    (
        "a_message_that_is_handed_back_comes_again_and_is_counted",
        a_message_that_is_handed_back_comes_again_and_is_counted,
    ),
    (
        "a_receipt_that_another_has_followed_is_no_error_and_deletes_nothing",
        a_receipt_that_another_has_followed_is_no_error_and_deletes_nothing,
    ),
    (
        "a_message_that_was_received_too_often_goes_to_the_dead_letter_queue",
        a_message_that_was_received_too_often_goes_to_the_dead_letter_queue,
    ),
    (
        "a_batch_is_taken_entry_by_entry_and_refused_as_a_whole_if_it_is_none",
        a_batch_is_taken_entry_by_entry_and_refused_as_a_whole_if_it_is_none,
    ),
    (
        "what_an_agent_that_is_gone_is_told_counts_as_sent",
        what_an_agent_that_is_gone_is_told_counts_as_sent,
    ),
    (
        "an_operation_has_one_execution_by_its_name_also_when_that_has_ended",
        an_operation_has_one_execution_by_its_name_also_when_that_has_ended,
    ),
    (
        "the_steps_of_each_kind_of_operation_come_in_their_order",
        the_steps_of_each_kind_of_operation_come_in_their_order,
    ),
    (
        "a_step_is_answered_once_and_an_answer_that_is_late_or_to_nothing_counts_as_given",
        a_step_is_answered_once_and_an_answer_that_is_late_or_to_nothing_counts_as_given,
    ),
    (
        "a_step_that_failed_is_followed_by_its_clean_up_and_one_that_was_overtaken_by_the_end",
        a_step_that_failed_is_followed_by_its_clean_up_and_one_that_was_overtaken_by_the_end,
    ),
    (
        "what_a_failed_step_says_of_itself_reaches_its_clean_up",
        what_a_failed_step_says_of_itself_reaches_its_clean_up,
    ),
];

fn main() -> ExitCode {
    if on_aws::only_listed(TESTS) {
        return ExitCode::SUCCESS;
    }
    let tools = tools::programs();
    let worlds = Worlds::new(tools, Path::new(env!("CARGO_BIN_EXE_relay")));
    on_aws::run(&worlds, TESTS, 1)
}

fn flow_ref(flow: &str) -> FlowRef {
    FlowRef {
        workspace: "w".to_owned(),
        owner: "ann".to_owned(),
        lineage: flow.to_owned(),
    }
}

fn settings() -> Settings {
    Settings::new("/flow")
}

/// A session's row at this revision.
fn row(flow: &str, revision: u64) -> SessionRow {
    let owner = flow_ref(flow);
    SessionRow {
        session: Session {
            revision,
            ..Session::never(flow, &owner.workspace, &owner.owner, settings())
        },
        flow: owner,
        outbox: BTreeMap::new(),
    }
}

fn write(row: SessionRow, read: u64, due: Option<Millis>) -> Write {
    Write::Session {
        row: Box::new(row),
        read,
        due,
    }
}

fn operation(id: &str, flow: &str) -> OperationRow {
    OperationRow {
        id: id.to_owned(),
        flow: flow.to_owned(),
        kind: Kind::Start,
        by: "ann".to_owned(),
        accepted: 5,
        status: OperationStatus::InProgress,
        ended: None,
        failure: None,
        also: Vec::new(),
        warning: None,
        setup: None,
        joined: None,
    }
}

fn log(revision: u64) -> LogRow {
    LogRow {
        revision,
        at: revision,
        by: "ann".to_owned(),
        from: Phase::Stopped,
        to: Phase::Stopped,
        generation: 0,
        event: Event::Tick,
    }
}

async fn save(aws: &Aws, writes: Vec<Write>) -> Result<(), Fault> {
    aws.save(Save { writes }).await
}

fn a_session_that_has_moved_on_is_a_conflict_and_nothing_of_the_transaction_is_written(worlds: &Worlds) {
    worlds.each(&[], async |world| {
        let (aws, flow) = (&world.aws, "moved-on");
        assert!(aws.load_session(flow).await.unwrap().is_none());
        let first = vec![
            Write::Log {
                flow: flow.to_owned(),
                entry: log(1),
            },
            Write::NewOperation(operation("moved-1", flow)),
            write(row(flow, 1), 0, None),
        ];
        save(aws, first.clone()).await.unwrap();
        assert_eq!(aws.load_session(flow).await.unwrap(), Some(row(flow, 1)));
        // The same again, and one that read nothing.
        assert!(matches!(save(aws, first).await, Err(Fault::Conflict)));
        let late = vec![
            Write::NewOperation(operation("moved-2", flow)),
            Write::Log {
                flow: flow.to_owned(),
                entry: log(2),
            },
            write(row(flow, 2), 0, None),
        ];
        assert!(matches!(save(aws, late).await, Err(Fault::Conflict)));
        assert_eq!(aws.load_operation("moved-2").await.unwrap(), None);
        assert_eq!(aws.history(flow, 0).await.unwrap(), [log(1)]);
        assert_eq!(aws.load_session(flow).await.unwrap(), Some(row(flow, 1)));
        save(aws, vec![write(row(flow, 2), 1, None)]).await.unwrap();
        assert!(matches!(
            save(aws, vec![write(row(flow, 2), 1, None)]).await,
            Err(Fault::Conflict)
        ));
    });
}

fn of_many_saves_at_once_exactly_one_is_done(worlds: &Worlds) {
    let moto = (
        "moto",
        "its table is not safe under concurrency: conditions are checked, and then items are put, with nothing that holds the two together",
    );
    worlds.each(&[moto], async |world| {
        let flow = "at-once";
        save(&world.aws, vec![write(row(flow, 1), 0, None)]).await.unwrap();
        let saves = (0..12).map(|i| {
            let aws = world.aws_with("", "");
            tokio::spawn(async move {
                let writes = vec![
                    Write::NewOperation(operation(&format!("at-once-{i}"), flow)),
                    write(row(flow, 2), 1, None),
                ];
                save(&aws, writes).await
            })
        });
        let mut done = 0;
        for (i, saved) in saves.collect::<Vec<_>>().into_iter().enumerate() {
            let saved = saved.await.unwrap();
            let written = world
                .aws
                .load_operation(&format!("at-once-{i}"))
                .await
                .unwrap()
                .is_some();
            assert_eq!(saved.is_ok(), written, "{i}");
            assert!(matches!(saved, Ok(()) | Err(Fault::Conflict)), "{i}: {saved:?}");
            done += usize::from(saved.is_ok());
        }
        assert_eq!(done, 1);
    });
}

fn what_a_user_has_is_written_only_over_what_was_read(worlds: &Worlds) {
    worlds.each(&[], async |world| {
        let aws = &world.aws;
        let user = "quota".to_owned();
        let enter = |usage: &Usage, flow: &str| {
            let wanted = Use {
                lineage: flow.to_owned(),
                size: "local".to_owned(),
                compute: "c1".to_owned(),
                since: None,
            };
            usage.enter(flow, &wanted, &Quota::default(), "w", 0).unwrap()
        };
        let write = |usage: &Usage| Write::Usage {
            workspace: "w".to_owned(),
            user: user.clone(),
            usage: usage.clone(),
        };
        let none = aws.load_usage("w", &user).await.unwrap();
        assert_eq!(none, Usage::default());
        let one = enter(&none, "q1");
        save(aws, vec![write(&one)]).await.unwrap();
        assert!(matches!(
            save(aws, vec![write(&enter(&none, "q2"))]).await,
            Err(Fault::Conflict)
        ));
        assert_eq!(aws.load_usage("w", &user).await.unwrap(), one);
        let left = one.leave("q1", 0).unwrap();
        save(aws, vec![write(&left)]).await.unwrap();
        assert_eq!(aws.load_usage("w", &user).await.unwrap(), left);
    });
}

fn a_compute_instance_is_changed_only_over_what_was_read_and_has_one_slot_by_its_name(worlds: &Worlds) {
    worlds.each(&[], async |world| {
        let aws = &world.aws;
        let instance = |name: &str, revision, size: &str| InstanceRow {
            workspace: "w".to_owned(),
            owner: "instances".to_owned(),
            name: name.to_owned(),
            size: size.to_owned(),
            idle_shutdown_seconds: Some(3600.try_into().unwrap()),
            revision,
            ..InstanceRow::default()
        };
        let put = |row: &InstanceRow| vec![Write::Instance(row.clone())];
        let (dev, lab) = (instance("dev", 1, "local"), instance("lab", 1, "local"));
        save(aws, put(&lab)).await.unwrap();
        save(aws, put(&dev)).await.unwrap();
        // Created twice.
        assert!(matches!(save(aws, put(&dev)).await, Err(Fault::Conflict)));
        let started = instance("dev", 2, "local");
        save(aws, put(&started)).await.unwrap();
        let all = aws.instances_of("w", "instances").await.unwrap();
        assert_eq!(all, [started.clone(), lab]);
        assert_eq!(aws.instances_of("w", "instance").await.unwrap(), []);
        // Deleted by somebody who has not seen the start.
        let forget = |row: &InstanceRow| vec![Write::ForgetInstance(row.clone())];
        assert!(matches!(save(aws, forget(&dev)).await, Err(Fault::Conflict)));
        save(aws, forget(&started)).await.unwrap();
        assert_eq!(aws.load_instance("w", "instances", "dev").await.unwrap(), None);
        assert!(matches!(
            save(aws, put(&instance("dev", 3, "local"))).await,
            Err(Fault::Conflict)
        ));
        // One of its name with another size finds what is left of it.
        let claim = vec![
            Write::Slot {
                slot: shell::slot_of(&dev),
                compute: "i1".to_owned(),
                was: None,
            },
            Write::Compute {
                compute: compute::start(None, &shell::slot_of(&dev), Some(60), "i1", 1).unwrap(),
                read: None,
            },
        ];
        save(aws, claim).await.unwrap();
        let other = shell::slot_of(&instance("dev", 1, "Standard_D2s_v5"));
        let found = aws.load_slot(&other).await.unwrap().unwrap();
        assert_eq!((found.id.as_str(), found.slot), ("i1", shell::slot_of(&dev)));
    });
}

fn a_claim_is_good_only_on_what_was_read(worlds: &Worlds) {
    worlds.each(&[], async |world| {
        let aws = &world.aws;
        let slot = Slot {
            workspace: "w".to_owned(),
            owner: "claims".to_owned(),
            size: "local".to_owned(),
            identity: None,
            instance: None,
        };
        let compute = |id: &str, revision, sessions: &[&str]| Compute {
            id: id.to_owned(),
            slot: slot.clone(),
            phase: ComputePhase::Requested,
            sessions: sessions.iter().map(|s| (*s).to_owned()).collect(),
            revision,
            due: Some(9),
            since: None,
            drained: None,
            shutdown: None,
        };
        let claim = |id: &str, was: Option<&str>| {
            vec![
                Write::Slot {
                    slot: slot.clone(),
                    compute: id.to_owned(),
                    was: was.map(str::to_owned),
                },
                Write::Compute {
                    compute: compute(id, 0, &["f"]),
                    read: None,
                },
            ]
        };
        assert_eq!(aws.load_slot(&slot).await.unwrap(), None);
        save(aws, claim("c1", None)).await.unwrap();
        assert_eq!(aws.load_slot(&slot).await.unwrap(), Some(compute("c1", 0, &["f"])));
        // Two claimants of an empty slot, and two of the same compute resource.
        assert!(matches!(save(aws, claim("c2", None)).await, Err(Fault::Conflict)));
        assert_eq!(aws.load_compute("c2").await.unwrap(), None);
        let join = |session: &str| {
            vec![Write::Compute {
                compute: compute("c1", 1, &["f", session]),
                read: Some(0),
            }]
        };
        save(aws, join("g")).await.unwrap();
        assert!(matches!(save(aws, join("h")).await, Err(Fault::Conflict)));
        assert_eq!(
            aws.load_compute("c1").await.unwrap(),
            Some(compute("c1", 1, &["f", "g"]))
        );
        assert!(matches!(save(aws, claim("c3", Some("c2"))).await, Err(Fault::Conflict)));
        save(aws, claim("c3", Some("c1"))).await.unwrap();
        assert_eq!(aws.load_slot(&slot).await.unwrap(), Some(compute("c3", 0, &["f"])));
    });
}

fn what_was_sent_leaves_the_outbox_and_nothing_else_does(worlds: &Worlds) {
    worlds.each(&[], async |world| {
        let (aws, flow) = (&world.aws, "outbox");
        let message = |n: u64| Message::AgentLease {
            generation: 1,
            nonce: n,
        };
        let with = |revision, messages: &[u64]| SessionRow {
            outbox: messages.iter().map(|n| (format!("r{n:03}"), message(*n))).collect(),
            ..row(flow, revision)
        };
        let names = |messages: &[u64]| messages.iter().map(|n| format!("r{n:03}")).collect::<Vec<_>>();
        let due = async || {
            let mut due = BTreeSet::new();
            for shard in 0..names::DUE_SHARDS {
                due.extend(
                    aws.due(shard, 1000)
                        .await
                        .unwrap()
                        .into_iter()
                        .filter_map(|due| match due.what {
                            DueRow::Session(flow) => Some(flow),
                            DueRow::Compute(_) | DueRow::Usage { .. } => None,
                        }),
                );
            }
            due.contains(flow)
        };
        save(aws, vec![write(with(1, &[1, 2, 3]), 0, Some(10))]).await.unwrap();
        assert_eq!(aws.load_session(flow).await.unwrap(), Some(with(1, &[1, 2, 3])));
        aws.clear(flow, &names(&[1]), 1, Some(10)).await.unwrap();
        assert_eq!(aws.load_session(flow).await.unwrap(), Some(with(1, &[2, 3])));
        assert!(due().await);
        // Somebody went on from there: what was sent leaves all the same, and the due time is
        // theirs.
        save(aws, vec![write(with(2, &[2, 3, 4]), 1, Some(20))]).await.unwrap();
        aws.clear(flow, &names(&[2]), 1, None).await.unwrap();
        assert_eq!(aws.load_session(flow).await.unwrap(), Some(with(2, &[3, 4])));
        assert!(due().await);
        // What has left before, with what is there.
        aws.clear(flow, &names(&[2, 3, 4]), 2, None).await.unwrap();
        assert_eq!(aws.load_session(flow).await.unwrap(), Some(with(2, &[])));
        assert!(!due().await);
        // Nothing to clear, by somebody who is late.
        aws.clear(flow, &[], 1, Some(30)).await.unwrap();
        assert!(!due().await);
    });
}

fn what_is_due_is_found_by_its_time_and_not_before(worlds: &Worlds) {
    worlds.each(&[], async |world| {
        let aws = &world.aws;
        let times: BTreeMap<String, u64> = (0..12).map(|n| (format!("due-{n}"), 2_000_000 + n * 10)).collect();
        for (flow, at) in &times {
            save(aws, vec![write(row(flow, 1), 0, Some(*at))]).await.unwrap();
        }
        save(aws, vec![write(row("due-never", 1), 0, None)]).await.unwrap();
        let mut found = BTreeSet::new();
        for shard in 0..names::DUE_SHARDS {
            let due = aws.due(shard, 2_000_050).await.unwrap();
            let flows: Vec<&String> = due
                .iter()
                .filter_map(|due| match &due.what {
                    DueRow::Session(flow) => Some(flow),
                    DueRow::Compute(_) | DueRow::Usage { .. } => None,
                })
                .filter(|flow| flow.starts_with("due-"))
                .collect();
            assert!(flows.is_sorted_by_key(|flow| times[*flow]), "{flows:?}");
            found.extend(flows.into_iter().cloned());
        }
        let expected = times
            .iter()
            .filter(|(_, at)| **at <= 2_000_050)
            .map(|(flow, _)| flow.clone());
        assert_eq!(found, expected.collect::<BTreeSet<_>>());
    });
}

fn a_run_and_an_operation_are_accepted_started_and_ended_in_their_rows(worlds: &Worlds) {
    worlds.each(&[], async |world| {
        let aws = &world.aws;
        let run = RunRow {
            id: "row-run".to_owned(),
            flow: "rows".to_owned(),
            of: Some(contract::FlowRef {
                workspace: "lab".to_owned(),
                owner: "ann".to_owned(),
                lineage: "/flows/rows".to_owned(),
            }),
            by: "ann".to_owned(),
            digest: None,
            folder: Some("/flows/rows".to_owned()),
            wish: RunWish::default(),
            accepted: 3,
            status: RunStatus::NotStarted,
            started: None,
            ended: None,
            failure: None,
            also: Vec::new(),
            result: None,
            warning: None,
            display_name: None,
            archived: false,
            deleted: None,
        };
        // A start that is seen before the run has its row is no run's.
        aws.run_started("row-run", 4).await.unwrap();
        assert_eq!(aws.load_run("row-run").await.unwrap(), None);
        save(aws, vec![Write::NewRun(run.clone())]).await.unwrap();
        assert!(matches!(
            save(aws, vec![Write::NewRun(run.clone())]).await,
            Err(Fault::Conflict)
        ));
        for at in [5, 6] {
            aws.run_started("row-run", at).await.unwrap();
        }
        let running = RunRow {
            status: RunStatus::Running,
            started: Some(5),
            ..run
        };
        assert_eq!(aws.load_run("row-run").await.unwrap(), Some(running.clone()));
        let end = RunEnd {
            status: RunStatus::Completed,
            ended: Some(9),
            failure: None,
            result: Some(RunResult {
                lines: 2,
                ..RunResult::default()
            }),
        };
        let (run, ended) = (running.id.clone(), running.with_end(end.clone()));
        save(aws, vec![Write::EndRun { run, end }]).await.unwrap();
        assert_eq!(aws.load_run("row-run").await.unwrap(), Some(ended.clone()));
        // It is in its user's list, has another name, and is gone but for its own name.
        let listed = async |after: Option<&str>| aws.runs_of("lab", "ann", after).await.unwrap();
        let (place, found) = listed(None).await.remove(0);
        assert_eq!(found, ended);
        assert!(listed(Some(&place)).await.is_empty());
        let change = contract::http::RunChange {
            display_name: Some("mine".to_owned()),
            archived: Some(true),
        };
        aws.change_run("row-run", &change).await.unwrap();
        let changed = aws.load_run("row-run").await.unwrap().unwrap();
        assert_eq!((changed.display_name(), changed.archived), (Some("mine"), true));
        aws.forget_run(&changed).await.unwrap();
        assert!(listed(None).await.is_empty());
        assert!(aws.load_run("row-run").await.unwrap().unwrap().deleted.is_some());
        let again = RunRow { accepted: 11, ..ended };
        assert!(matches!(
            save(aws, vec![Write::NewRun(again)]).await,
            Err(Fault::Conflict)
        ));
        save(aws, vec![Write::NewOperation(operation("row-op", "rows"))])
            .await
            .unwrap();
        let end = OperationEnd {
            status: OperationStatus::Failed,
            ended: Some(9),
            failure: Some(Failure::new(Code::InstallConflict, "No two of these go together.")),
            warning: None,
            joined: None,
        };
        let failed = operation("row-op", "rows").with_end(end.clone());
        let operation = failed.id.clone();
        save(aws, vec![Write::EndOperation { operation, end }]).await.unwrap();
        assert_eq!(aws.load_operation("row-op").await.unwrap(), Some(failed));
    });
}

fn output_is_kept_once_and_read_in_order_and_so_is_history(worlds: &Worlds) {
    worlds.each(&[], async |world| {
        let aws = &world.aws;
        let line = |seq: u64| OutputLine {
            seq,
            at: seq,
            kind: LineKind::Stdout,
            text: format!("line {seq}, with ünïcode"),
        };
        // More than one batch, some twice in the same call and in two.
        let lines: Vec<_> = (0..40).chain([3, 3, 7]).map(line).collect();
        aws.keep_output("output", &lines).await.unwrap();
        aws.keep_output("output", &lines[30..40]).await.unwrap();
        let all: Vec<_> = (0..40).map(line).collect();
        assert_eq!(aws.output("output", None).await.unwrap(), all);
        assert_eq!(aws.output("output", Some(37)).await.unwrap(), all[38..]);
        assert_eq!(aws.output("output", Some(39)).await.unwrap(), []);
        assert_eq!(aws.output("no-output", None).await.unwrap(), []);
        // More rows than one query gives, and lines as long as they may be.
        let long = |seq: u64| OutputLine {
            text: "\u{1}".repeat(2_000),
            ..line(seq)
        };
        for first in (0..400).step_by(10) {
            let lines: Vec<_> = (first..first + 10).map(long).collect();
            aws.keep_output("long", &lines).await.unwrap();
        }
        let all: Vec<_> = (0..400).map(long).collect();
        aws.keep_output("long", &all[100..200]).await.unwrap();
        assert_eq!(aws.output("long", None).await.unwrap(), all);
        assert_eq!(aws.output("long", Some(104)).await.unwrap(), all[105..]);
        for revision in 1..=11 {
            let entry = Write::Log {
                flow: "history".to_owned(),
                entry: log(revision),
            };
            save(aws, vec![entry, write(row("history", revision), revision - 1, None)])
                .await
                .unwrap();
        }
        let history: Vec<_> = (1..=11).map(log).collect();
        assert_eq!(aws.history("history", 0).await.unwrap(), history);
        assert_eq!(aws.history("history", 9).await.unwrap(), history[9..]);
    });
}

fn a_user_finds_their_own_sessions(worlds: &Worlds) {
    worlds.each(&[], async |world| {
        let aws = &world.aws;
        let of = |flow: &str, owner: &str| {
            let mut row = row(flow, 1);
            (row.flow.owner, row.session.owner) = (owner.to_owned(), owner.to_owned());
            row
        };
        let mine: Vec<_> = ["mine-1", "mine-2", "mine-3"].map(|flow| of(flow, "me")).to_vec();
        for row in mine.iter().cloned().chain([of("theirs", "somebody-else")]) {
            save(aws, vec![write(row, 0, None)]).await.unwrap();
        }
        assert_eq!(aws.sessions_of(("w", "me"), "", "", 100).await.unwrap(), mine);
        assert_eq!(aws.sessions_of(("another", "me"), "", "", 100).await.unwrap(), []);
    });
}

fn sessions_are_found_by_page_and_key_and_users_once_each_in_order(worlds: &Worlds) {
    worlds.each(&[], async |world| {
        let aws = &world.aws;
        let of = |flow: &str, owner: &str| {
            let mut row = row(flow, 1);
            (row.flow.owner, row.session.owner) = (owner.to_owned(), owner.to_owned());
            (row.flow.workspace, row.session.workspace) = ("paged".to_owned(), "paged".to_owned());
            row
        };
        let rows = ["pa1", "pa2", "pb1", "pb2"].map(|flow| of(flow, "ann"));
        for row in rows.iter().cloned().chain([of("pz", "zoë"), of("pc", "bob")]) {
            save(aws, vec![write(row, 0, None)]).await.unwrap();
        }
        let page = async |prefix: &str, after: &str, most| {
            let found = aws.sessions_of(("paged", "ann"), prefix, after, most).await.unwrap();
            found.into_iter().map(|row| row.session.flow).collect::<Vec<_>>()
        };
        assert_eq!(page("", "", 3).await, ["pa1", "pa2", "pb1"]);
        assert_eq!(page("", "pb1", 3).await, ["pb2"]);
        assert_eq!(page("", "pa1", 2).await, ["pa2", "pb1"]);
        assert_eq!(page("pb", "", 9).await, ["pb1", "pb2"]);
        assert_eq!(page("pb", "pb1", 9).await, ["pb2"]);
        assert!(page("pb", "pb2", 9).await.is_empty() && page("q", "", 9).await.is_empty());

        assert_eq!(aws.users_after("paged", "").await.unwrap(), ["ann", "bob", "zoë"]);
        assert_eq!(aws.users_after("paged", "bob").await.unwrap(), ["zoë"]);
        assert!(aws.users_after("paged", "zoë").await.unwrap().is_empty());
        assert!(aws.users_after("nowhere", "").await.unwrap().is_empty());
    });
}

fn command(id: &str, flow: &str) -> Command {
    Command {
        id: id.to_owned(),
        flow: flow_ref(flow),
        principal: None,
        wish: Wish::Stop,
    }
}

fn one_flows_commands_come_in_order_and_a_wish_that_is_sent_twice_comes_once(worlds: &Worlds) {
    worlds.each(&[], async |world| {
        let queue = &world.queue("order.fifo", &[(VisibilityTimeout, "60")]).await;
        let aws = world.aws_with(names::COMMANDS.url_variable, queue);
        for (id, flow) in [("a1", "a"), ("a2", "a"), ("b1", "b"), ("a2", "a"), ("a3", "a")] {
            aws.send_command(&command(id, flow)).await.unwrap();
        }
        let ids = |messages: &[aws_sdk_sqs::types::Message]| -> Vec<String> {
            let read = |m: &aws_sdk_sqs::types::Message| Command::read(m.body().unwrap()).unwrap().id;
            messages.iter().map(read).collect()
        };
        let mut taken = Vec::new();
        while taken.len() < 4 {
            let more = world.receive(queue, 10, 2).await;
            assert!(!more.is_empty(), "only {:?} came", ids(&taken));
            taken.extend(more);
        }
        taken.sort_by_key(|message| ids(std::slice::from_ref(message))[0].starts_with('b'));
        assert_eq!(ids(&taken), ["a1", "a2", "a3", "b1"]);
        // While one of a group is in flight, nothing of it is given out, also not what was handed
        // back.
        for handed_back in &taken[1..3] {
            world.hand_back(queue, handed_back, 0).await;
        }
        assert_eq!(ids(&world.receive(queue, 10, 1).await), Vec::<String>::new());
        // The other group goes on meanwhile.
        world.delete(queue, &taken[3]).await;
        aws.send_command(&command("b2", "b")).await.unwrap();
        assert_eq!(ids(&world.receive(queue, 10, 2).await), ["b2"]);
        // Once it is done, the next ones come, in their order.
        world.delete(queue, &taken[0]).await;
        assert_eq!(ids(&world.receive(queue, 1, 2).await), ["a2"]);
    });
}

/// # Source
///
/// "Amazon SQS continues tracking the deduplication ID even after the message has been received and
/// deleted" (SQS developer guide, *FIFO queue key terms*).
fn a_wish_that_was_done_is_the_same_wish_for_a_while(worlds: &Worlds) {
    let moto = (
        "moto",
        "it knows the deduplication ids of the messages that are in the queue, and forgets one with its message: a second one came in this test",
    );
    worlds.each(&[moto], async |world| {
        let queue = &world.queue("same-wish.fifo", &[]).await;
        let aws = world.aws_with(names::COMMANDS.url_variable, queue);
        aws.send_command(&command("same", "a")).await.unwrap();
        let got = world.receive(queue, 1, 2).await;
        world.delete(queue, &got[0]).await;
        aws.send_command(&command("same", "a")).await.unwrap();
        aws.send_command(&command("another", "a")).await.unwrap();
        let next = world.receive(queue, 10, 2).await;
        let ids: Vec<_> = next
            .iter()
            .map(|m| Command::read(m.body().unwrap()).unwrap().id)
            .collect();
        assert_eq!(ids, ["another"]);
    });
}

/// # Source
///
/// "When you use the DeleteMessage action, you must provide the most recently received
/// ReceiptHandle for the message (otherwise, the request succeeds, but the message will not be
/// deleted)" (SQS API reference, *DeleteMessage*).
fn a_receipt_that_another_has_followed_is_no_error_and_deletes_nothing(worlds: &Worlds) {
    let ministack = (
        "ministack",
        "it answers ReceiptHandleIsInvalid: it looks for the receipt among those of the messages that are there, as its source says",
    );
    let moto = (
        "moto",
        "it keeps all receipts of a message and deletes it by any: the third receive in this test found nothing",
    );
    worlds.each(&[ministack, moto], async |world| {
        let queue = &world.queue("receipts", &[(VisibilityTimeout, "60")]).await;
        let send = world.sqs.send_message().queue_url(queue).message_body("once");
        send.send().await.unwrap();
        let first = world.receive(queue, 1, 2).await;
        world.hand_back(queue, &first[0], 0).await;
        let second = world.receive(queue, 1, 2).await;
        world.delete(queue, &first[0]).await;
        world.hand_back(queue, &second[0], 0).await;
        let third = world.receive(queue, 1, 2).await;
        assert_eq!(third.len(), 1, "it is still there");
        world.delete(queue, &third[0]).await;
        world.delete(queue, &third[0]).await;
    });
}

fn a_message_that_is_handed_back_comes_again_and_is_counted(worlds: &Worlds) {
    use aws_sdk_sqs::types::MessageSystemAttributeName::{ApproximateReceiveCount, SenderId};
    worlds.each(&[], async |world| {
        let queue = &world.queue("visibility", &[(VisibilityTimeout, "1")]).await;
        world
            .sqs
            .send_message()
            .queue_url(queue)
            .message_body("again")
            .send()
            .await
            .unwrap();
        for times in 1..=3 {
            // After its visibility time, and then at once.
            let got = world.receive(queue, 1, 5).await;
            let attributes = got[0].attributes().expect("a message has attributes");
            assert_eq!(attributes[&ApproximateReceiveCount], times.to_string());
            assert!(!attributes[&SenderId].is_empty());
            match times {
                1 => assert!(world.receive(queue, 1, 0).await.is_empty(), "it is in flight"),
                2 => world.hand_back(queue, &got[0], 0).await,
                _ => {
                    world.hand_back(queue, &got[0], 30).await;
                    assert!(
                        world.receive(queue, 1, 2).await.is_empty(),
                        "it stays away for longer now"
                    );
                    world.delete(queue, &got[0]).await;
                }
            }
        }
        let nonsense = world.sqs.change_message_visibility().queue_url(queue);
        let refused = nonsense
            .receipt_handle("nonsense")
            .visibility_timeout(1)
            .send()
            .await
            .unwrap_err();
        assert!(
            refused.as_service_error().unwrap().is_receipt_handle_is_invalid(),
            "{refused:?}"
        );
    });
}

fn a_message_that_was_received_too_often_goes_to_the_dead_letter_queue(worlds: &Worlds) {
    worlds.each(&[], async |world| {
        for end in ["", ".fifo"] {
            let (live, dead) = (format!("live{end}"), format!("dead{end}"));
            let dead_queue = &world.queue(&dead, &[]).await;
            let policy = format!(
                r#"{{"deadLetterTargetArn":"{}","maxReceiveCount":"2"}}"#,
                world.arn(&dead)
            );
            let queue = &world
                .queue(&live, &[(RedrivePolicy, &policy), (VisibilityTimeout, "60")])
                .await;
            let send = async |body: &str| {
                let mut send = world.sqs.send_message().queue_url(queue).message_body(body);
                if !end.is_empty() {
                    send = send.message_group_id("g").message_deduplication_id(body);
                }
                send.send().await.unwrap();
            };
            send("poison").await;
            for _ in 0..2 {
                let got = world.receive(queue, 1, 2).await;
                assert_eq!(got[0].body(), Some("poison"), "{live}");
                world.hand_back(queue, &got[0], 0).await;
            }
            // What stands behind it goes on.
            send("good").await;
            let mut next = world.receive(queue, 1, 2).await;
            if next.is_empty() {
                next = world.receive(queue, 1, 2).await;
            }
            assert_eq!(next[0].body(), Some("good"), "{live}");
            let buried = world.receive(dead_queue, 1, 2).await;
            assert_eq!(buried[0].body(), Some("poison"), "{dead}");
            assert!(world.receive(queue, 1, 0).await.is_empty());
        }
    });
}

fn a_batch_is_taken_entry_by_entry_and_refused_as_a_whole_if_it_is_none(worlds: &Worlds) {
    worlds.each(&[], async |world| {
        let queue = &world.queue("batches", &[]).await;
        let send = async |ids: &[&str]| {
            let entry = |id: &&str| {
                SendMessageBatchRequestEntry::builder()
                    .id(*id)
                    .message_body(*id)
                    .build()
                    .unwrap()
            };
            let batch = world.sqs.send_message_batch().queue_url(queue);
            batch.set_entries(Some(ids.iter().map(entry).collect())).send().await
        };
        let eleven: Vec<String> = (0..11).map(|n| n.to_string()).collect();
        let eleven: Vec<&str> = eleven.iter().map(String::as_str).collect();
        let twice = send(&["a", "a"]).await.unwrap_err();
        assert!(
            twice.as_service_error().unwrap().is_batch_entry_ids_not_distinct(),
            "{twice:?}"
        );
        let many = send(&eleven).await.unwrap_err();
        assert!(
            many.as_service_error().unwrap().is_too_many_entries_in_batch_request(),
            "{many:?}"
        );
        let none = send(&[]).await.unwrap_err();
        assert!(none.as_service_error().unwrap().is_empty_batch_request(), "{none:?}");
        let sent = send(&["a", "b", "c"]).await.unwrap();
        assert_eq!((sent.successful.len(), sent.failed.len()), (3, 0));
        let mut got = Vec::new();
        while got.len() < 3 {
            let more = world.receive(queue, 10, 2).await;
            assert!(!more.is_empty());
            got.extend(more);
        }
        let change = |id: &str, receipt: &str| {
            let entry = ChangeMessageVisibilityBatchRequestEntry::builder().id(id);
            entry.receipt_handle(receipt).visibility_timeout(0).build().unwrap()
        };
        let receipt = |n: usize| got[n].receipt_handle().unwrap();
        let changed = world.sqs.change_message_visibility_batch().queue_url(queue);
        let changed = changed
            .entries(change("good", receipt(0)))
            .entries(change("bad", "nonsense"));
        let changed = changed.send().await.unwrap();
        assert_eq!((changed.successful[0].id(), changed.failed[0].id()), ("good", "bad"));
        let delete = |id: &str, receipt: &str| {
            let entry = DeleteMessageBatchRequestEntry::builder().id(id);
            entry.receipt_handle(receipt).build().unwrap()
        };
        let deleted = world.sqs.delete_message_batch().queue_url(queue);
        let deleted = deleted
            .entries(delete("good", receipt(1)))
            .entries(delete("bad", "nonsense"));
        let deleted = deleted.send().await.unwrap();
        assert_eq!((deleted.successful[0].id(), deleted.failed[0].id()), ("good", "bad"));
        let again = world.receive(queue, 10, 2).await;
        assert_eq!(again.len(), 1);
        assert_eq!(again[0].body(), got[0].body());
    });
}

fn what_an_agent_that_is_gone_is_told_counts_as_sent(worlds: &Worlds) {
    worlds.each(&[], async |world| {
        let row = row("told", 1);
        let lease = Message::AgentLease {
            generation: 3,
            nonce: 8,
        };
        world.aws.send(&row, &lease).await.unwrap();
        let name = names::agent_queue("told", 3);
        let queue = &world.queue(&name, &[]).await;
        // Made twice is made once.
        assert_eq!(*queue, world.queue(&name, &[]).await);
        world.aws.send(&row, &lease).await.unwrap();
        let got = world.receive(queue, 10, 2).await;
        assert_eq!(got[0].body(), Some(r#"{"command":"lease","nonce":8}"#));
        world.sqs.delete_queue().queue_url(queue).send().await.unwrap();
        let gone = world.sqs.get_queue_url().queue_name(&name).send().await.unwrap_err();
        assert!(gone.as_service_error().unwrap().is_queue_does_not_exist(), "{gone:?}");
        world.aws.send(&row, &lease).await.unwrap();
    });
}

async fn begin(world: &World, operation: &str, kind: Kind) {
    let begin = Message::StartExecution {
        operation: operation.to_owned(),
        kind,
    };
    world.aws.send(&row("steps", 1), &begin).await.unwrap();
}

/// Waits for the next step, which is to be this one of this operation, and gives back its token.
async fn expect_step(world: &World, operation: &str, step: &str) -> String {
    let next = world.next_step().await;
    assert_eq!(
        (next["operation"].as_str(), next["step"].as_str()),
        (Some(operation), Some(step)),
        "{next}"
    );
    assert_eq!(next["flow"], "steps");
    next["token"].as_str().expect("a step has a token").to_owned()
}

async fn answer(world: &World, token: &str, failure: Option<Failure>) {
    let answer = Message::AnswerStep {
        token: token.to_owned(),
        failure,
    };
    world.aws.send(&row("steps", 1), &answer).await.unwrap();
}

fn an_operation_has_one_execution_by_its_name_also_when_that_has_ended(worlds: &Worlds) {
    worlds.each(&[], async |world| {
        begin(world, "once", Kind::Stop).await;
        let token = expect_step(world, "once", "stop-session").await;
        begin(world, "once", Kind::Stop).await;
        assert!(world.no_step_comes().await);
        // Another input by the same name is another wish.
        let other = world
            .sfn
            .start_execution()
            .state_machine_arn(world.machine())
            .name("once")
            .input("{}");
        let refused = other.send().await.unwrap_err();
        assert!(
            refused.as_service_error().unwrap().is_execution_already_exists(),
            "{refused:?}"
        );
        answer(world, &token, None).await;
        assert_eq!(world.end_of("once").await, ("SUCCEEDED".to_owned(), String::new()));
        begin(world, "once", Kind::Stop).await;
        assert!(world.no_step_comes().await);
    });
}

fn the_steps_of_each_kind_of_operation_come_in_their_order(worlds: &Worlds) {
    let up = ["claim-compute", "launch-session", "install-packages"];
    let cases = [
        ("order-start", Kind::Start, up.to_vec()),
        ("order-install", Kind::Install, vec!["install-packages"]),
        ("order-stop", Kind::Stop, vec!["stop-session"]),
        ("order-reset", Kind::Reset, [&["stop-session"], &up[..]].concat()),
        ("order-update", Kind::Update, [&["stop-session"], &up[..]].concat()),
    ];
    worlds.each(&[], async |world| {
        for (operation, kind, steps) in &cases {
            begin(world, operation, *kind).await;
            for step in steps {
                let token = expect_step(world, operation, step).await;
                answer(world, &token, None).await;
            }
            assert_eq!(world.end_of(operation).await.0, "SUCCEEDED", "{operation}");
        }
    });
}

fn a_step_is_answered_once_and_an_answer_that_is_late_or_to_nothing_counts_as_given(worlds: &Worlds) {
    worlds.each(&[], async |world| {
        begin(world, "late", Kind::Stop).await;
        let token = expect_step(world, "late", "stop-session").await;
        answer(world, &token, None).await;
        assert_eq!(world.end_of("late").await.0, "SUCCEEDED");
        answer(world, &token, None).await;
        answer(world, &token, Some(Failure::new(Code::SessionSuperseded, "too late"))).await;
        assert_eq!(world.end_of("late").await.0, "SUCCEEDED");
        answer(world, "no token at all", None).await;
        // In the middle: the second answer of one step is not the next one's.
        begin(world, "twice", Kind::Start).await;
        let first = expect_step(world, "twice", "claim-compute").await;
        answer(world, &first, None).await;
        answer(world, &first, Some(Failure::new(Code::SessionStepFailed, "late"))).await;
        let second = expect_step(world, "twice", "launch-session").await;
        answer(world, &first, None).await;
        assert!(world.no_step_comes().await);
        answer(world, &second, Some(Failure::new(Code::SessionSuperseded, "a stop"))).await;
        assert_eq!(world.end_of("twice").await.0, "SUCCEEDED");
    });
}

fn a_step_that_failed_is_followed_by_its_clean_up_and_one_that_was_overtaken_by_the_end(worlds: &Worlds) {
    worlds.each(&[], async |world| {
        begin(world, "failing", Kind::Start).await;
        let token = expect_step(world, "failing", "claim-compute").await;
        answer(
            world,
            &token,
            Some(Failure::new(Code::SessionQuotaExceeded, "You have 20 sessions.")),
        )
        .await;
        let next = world.next_step().await;
        assert_eq!(next["step"], "clean-up", "{next}");
        assert_eq!(next["cause"]["Error"], "Session.QuotaExceeded", "{next}");
        answer(world, next["token"].as_str().unwrap(), None).await;
        let ended = world.end_of("failing").await;
        assert_eq!(ended, ("FAILED".to_owned(), "Session.OperationFailed".to_owned()));

        begin(world, "overtaken", Kind::Install).await;
        let token = expect_step(world, "overtaken", "install-packages").await;
        answer(
            world,
            &token,
            Some(Failure::new(Code::SessionSuperseded, "A stop has taken over.")),
        )
        .await;
        assert_eq!(world.end_of("overtaken").await.0, "SUCCEEDED");
        assert!(world.no_step_comes().await);
    });
}

/// # Source
///
/// "cause: A more detailed explanation of the cause of the failure" (Step Functions API reference,
/// *SendTaskFailure*); the error output that a catcher hands on has it (*Handling errors in Step
/// Functions workflows*).
fn what_a_failed_step_says_of_itself_reaches_its_clean_up(worlds: &Worlds) {
    let moto = (
        "moto",
        "its SendTaskFailure reads the token and the error alone, and the cause comes as null",
    );
    worlds.each(&[moto], async |world| {
        begin(world, "saying", Kind::Start).await;
        let token = expect_step(world, "saying", "claim-compute").await;
        let failure = Failure::new(Code::SessionQuotaExceeded, "You have 20 sessions.");
        answer(world, &token, Some(failure)).await;
        let next = world.next_step().await;
        assert_eq!(next["cause"]["Cause"], "You have 20 sessions.", "{next}");
        answer(world, next["token"].as_str().unwrap(), None).await;
        assert_eq!(world.end_of("saying").await.0, "FAILED");
    });
}
