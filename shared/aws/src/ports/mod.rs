//! The shell's ports.

mod sends;
mod writes;

use crate::{
    Aws,
    items::{self, Item, json, number, text},
    metrics,
};
use aws_sdk_dynamodb::{
    error::{ProvideErrorMetadata, SdkError},
    types::{AttributeValue, TransactWriteItem},
};
use contract::{
    Failure, FlowRef, Millis,
    agent::{AgentCommand, OutputLine},
    command::Command,
    driver::{ComputeRequest, Room},
    http::RunChange,
    instance::InstanceRow,
    names,
    network::NetworkRow,
    notice::Notice,
    packages::{InstallRow, PackagesRow, Setup},
    people::RoleRow,
    row::{OperationRow, RunRow, SessionRow, UsedRow},
    step::ExecutionInput,
    webhook::WebhooksRow,
    workspace::WorkspaceRow,
};
use lifecycle::{
    compute::{Compute, Slot},
    quota::Usage,
    session::{Message, Packages},
    size::Offer,
};
use sends::{body_of, trace_attribute};
use serde::de::DeserializeOwned;
use shell::{Due, DueRow, Fault, Ports, Save, Write};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use writes::{fault_of_transaction, new_user, put_item};

/// The time for which output and history are kept after an end, in seconds.
const KEPT: u64 = 14 * 86_400;

impl Ports for Aws {
    fn now(&self) -> Millis {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }

    fn new_id(&self) -> String {
        let mut bytes = [0u8; 16];
        // Without randomness there is no identity, no TLS, no process that could have come so far.
        getrandom::fill(&mut bytes).expect("the system has randomness");
        hex::encode(bytes)
    }

    fn sessions_per_user(&self) -> usize {
        self.sessions_per_user
    }

    fn offer(&self) -> Offer {
        self.offer
    }

    async fn load_session(&self, flow: &str) -> Result<Option<SessionRow>, Fault> {
        self.get(items::session_key(flow))
            .await?
            .map(|item| items::session_of(&item))
            .transpose()
    }

    async fn load_operation(&self, id: &str) -> Result<Option<OperationRow>, Fault> {
        self.get(items::operation_key(id))
            .await?
            .map(|item| items::operation_of(&item))
            .transpose()
    }

    async fn load_run(&self, id: &str) -> Result<Option<RunRow>, Fault> {
        self.get(items::run_key(id))
            .await?
            .map(|item| items::run_of(&item))
            .transpose()
    }

    async fn load_packages(&self, flow: &str) -> Result<Option<PackagesRow>, Fault> {
        self.load_body(items::packages_key(flow)).await
    }

    async fn installs(&self, flow: &str) -> Result<Vec<InstallRow>, Fault> {
        let (from, to) = ("INSTALL#".to_owned(), "INSTALL#~".to_owned());
        let items = self
            .after(format!("FLOW#{flow}"), from, to, "reading the installs")
            .await?;
        items.iter().map(items::body).collect()
    }

    async fn load_compute(&self, id: &str) -> Result<Option<Compute>, Fault> {
        self.load_body(items::compute_key(id)).await
    }

    async fn load_slot(&self, slot: &Slot) -> Result<Option<Compute>, Fault> {
        match self.get(items::slot_key(slot)).await? {
            Some(item) => self.load_compute(&items::body::<String>(&item)?).await,
            None => Ok(None),
        }
    }

    async fn load_instance(&self, workspace: &str, owner: &str, name: &str) -> Result<Option<InstanceRow>, Fault> {
        self.load_body(items::instance_key(workspace, owner, name)).await
    }

    async fn load_webhooks(&self, workspace: &str) -> Result<Option<WebhooksRow>, Fault> {
        self.load_body(items::webhooks_key(workspace)).await
    }

    async fn load_roles(&self, workspace: &str, user: &str) -> Result<Option<RoleRow>, Fault> {
        self.load_body(items::role_key(workspace, user)).await
    }

    async fn load_workspace(&self, workspace: &str) -> Result<Option<WorkspaceRow>, Fault> {
        self.load_body(items::workspace_key(workspace)).await
    }

    async fn load_usage(&self, workspace: &str, user: &str) -> Result<Usage, Fault> {
        let item = self.get(items::quota_key(workspace, user)).await?;
        item.map_or_else(|| Ok(Usage::default()), |item| items::usage_of(&item))
    }

    async fn save(&self, save: Save) -> Result<(), Fault> {
        // The place of each run in its user's list is written with its row.
        let listed: Vec<TransactWriteItem> = save
            .writes
            .iter()
            .filter_map(|write| match write {
                Write::NewRun(row) => items::listed_run(row).map(|item| put_item(self.put(item))),
                _ => None,
            })
            .collect();
        for write in &save.writes {
            if let Some((workspace, owner)) = new_user(write) {
                self.list_user(workspace, owner).await?;
            }
        }
        let ended = self.metrics.as_ref().map(|_| metrics::ends_of(&save.writes));
        let now = self.now();
        let writes = save.writes.into_iter().map(|write| self.transact(write, now));
        let writes = writes.chain(listed).collect();
        let sent = self
            .dynamo
            .transact_write_items()
            .set_transact_items(Some(writes))
            .send()
            .await;
        match sent {
            Ok(_) => {
                self.tell_ended(ended.unwrap_or_default()).await;
                Ok(())
            }
            Err(error) => Err(fault_of_transaction(error)),
        }
    }

    async fn clear(&self, flow: &str, sent: &[String], revision: u64, due: Option<Millis>) -> Result<(), Fault> {
        let mut remove: Vec<String> = (0..sent.len()).map(|i| format!("outbox.#k{i}")).collect();
        if due.is_none() {
            remove.extend(["due_shard".to_owned(), "due_at".to_owned()]);
        }
        let mut expression = if remove.is_empty() {
            String::new()
        } else {
            format!("REMOVE {}", remove.join(", "))
        };
        let mut update = self
            .dynamo
            .update_item()
            .table_name(&self.table)
            .set_key(Some(items::session_key(flow)));
        for (i, key) in sent.iter().enumerate() {
            update = update.expression_attribute_names(format!("#k{i}"), key);
        }
        let only_sent = update.clone();
        if let Some(at) = due {
            expression = format!("SET due_shard = :s, due_at = :d {expression}");
            update = update
                .expression_attribute_values(":s", text(items::shard_of(flow)))
                .expression_attribute_values(":d", number(at));
        }
        let cleared = update
            .update_expression(expression)
            .condition_expression("revision = :r")
            .expression_attribute_values(":r", number(revision))
            .send()
            .await;
        match cleared {
            Ok(_) => Ok(()),
            Err(error)
                if error
                    .as_service_error()
                    .is_some_and(|e| e.is_conditional_check_failed_exception()) =>
            {
                // Somebody has gone on from here, and has set a due time of their own.
                if sent.is_empty() {
                    return Ok(());
                }
                let remove: Vec<String> = (0..sent.len()).map(|i| format!("outbox.#k{i}")).collect();
                let cleared = only_sent
                    .update_expression(format!("REMOVE {}", remove.join(", ")))
                    .send()
                    .await;
                cleared
                    .map(|_| ())
                    .map_err(|e| Fault::outside("clearing the outbox")(e.into()))
            }
            Err(error) => Err(Fault::outside("clearing the outbox")(error.into())),
        }
    }

    #[expect(clippy::too_many_lines, reason = "one arm for each message, which says who takes it")]
    async fn send(&self, row: &SessionRow, message: &Message) -> Result<(), Fault> {
        let flow = row.session.flow.clone();
        match message.clone() {
            Message::StartExecution { operation, kind } => {
                self.start_execution(&ExecutionInput { flow, operation, kind }).await
            }
            Message::AnswerStep { token, failure } => self.answer_step(&token, failure).await,
            Message::CreateCompute { compute, slot } => self.ask_driver(&ComputeRequest::create(compute, slot)).await,
            Message::ReleaseCompute { compute } => self.ask_driver(&ComputeRequest::ReleaseCompute { compute }).await,
            Message::LaunchSession {
                generation,
                compute,
                settings,
                until,
            } => {
                let FlowRef { owner, workspace, .. } = row.flow.clone();
                self.ask_driver(&ComputeRequest::LaunchSession {
                    flow,
                    owner,
                    workspace,
                    generation,
                    compute,
                    room: Room::of(&settings.size.value),
                    settings,
                    until,
                })
                .await
            }
            Message::CheckImage {
                generation,
                operation,
                image,
            } => {
                self.ask_driver(&ComputeRequest::CheckImage {
                    flow,
                    generation,
                    operation,
                    image,
                })
                .await
            }
            Message::RemoveSession { generation, compute } => {
                self.ask_driver(&ComputeRequest::RemoveSession {
                    flow,
                    generation,
                    compute,
                })
                .await
            }
            Message::AgentInstall {
                generation,
                operation,
                attempt,
                settings,
                packages,
            } => {
                let command = AgentCommand::Install {
                    operation,
                    attempt,
                    settings,
                    resolve: packages == Packages::Anew,
                    lock: self.lock_of(&flow, packages).await?,
                };
                self.tell_agent(&flow, generation, &command).await
            }
            Message::AgentCancelInstall { generation, operation } => {
                self.tell_agent(&flow, generation, &AgentCommand::CancelInstall { operation })
                    .await
            }
            Message::AgentNetwork {
                generation,
                revision,
                network,
                allow_hosts,
            } => {
                let command = AgentCommand::Network {
                    revision,
                    network,
                    allow_hosts,
                };
                self.tell_agent(&flow, generation, &command).await
            }
            Message::AgentLease { generation, nonce } => {
                self.tell_agent(&flow, generation, &AgentCommand::Lease { nonce }).await
            }
            Message::AgentRun { generation, run } => self.send_run(row, generation, run).await,
            Message::AgentCancelRun { generation, run } => {
                self.tell_agent(&flow, generation, &AgentCommand::CancelRun { run })
                    .await
            }
            Message::WarnIdle { generation, due } => self.warn_idle(row, generation, due).await,
            Message::WarnDailyTime { generation, due } => {
                let (flow, key) = (row.flow.clone(), row.session.flow.clone());
                self.notify(&Notice::StoppedForTheDaySoon {
                    flow,
                    key,
                    generation,
                    due,
                })
                .await
            }
        }
    }

    async fn send_command(&self, command: &Command) -> Result<(), Fault> {
        let queue = require(&self.commands, names::COMMANDS.url_variable)?;
        let sent = self
            .sqs
            .send_message()
            .queue_url(queue)
            .set_message_system_attributes(trace_attribute())
            .message_body(body_of(command))
            .message_group_id(command.flow.key())
            .message_deduplication_id(&command.id)
            .send()
            .await;
        sent.map(|_| ())
            .map_err(|e| Fault::outside("sending a command")(e.into()))
    }

    async fn send_notice(&self, notice: &Notice) -> Result<(), Fault> {
        self.notify(notice).await
    }

    async fn ask_driver(&self, request: &ComputeRequest) -> Result<(), Fault> {
        let queue = require(&self.compute_requests, names::COMPUTE_REQUESTS.url_variable)?;
        let sent = self
            .sqs
            .send_message()
            .queue_url(queue)
            .set_message_system_attributes(trace_attribute())
            .message_body(body_of(request))
            .send()
            .await;
        sent.map(|_| ())
            .map_err(|e| Fault::outside("asking the compute driver")(e.into()))
    }

    async fn due(&self, shard: u32, now: Millis) -> Result<Vec<Due>, Fault> {
        let page = self
            .dynamo
            .query()
            .table_name(&self.table)
            .index_name(names::DUE_INDEX)
            .key_condition_expression("due_shard = :s AND due_at <= :n")
            .expression_attribute_values(":s", text(shard.to_string()))
            .expression_attribute_values(":n", number(now))
            .limit(100)
            .send()
            .await
            .map_err(|e| Fault::outside("reading what is due")(e.into()))?;
        let keys = page.items.unwrap_or_default();
        let name = |item: &Item| {
            let (kind, id) = item.get("pk")?.as_s().ok()?.split_once('#')?;
            let what = match kind {
                "FLOW" => DueRow::Session(id.to_owned()),
                "COMPUTE" => DueRow::Compute(id.to_owned()),
                "QUOTA" => {
                    let (workspace, user) = id.split_once('#')?;
                    let (workspace, user) = (workspace.to_owned(), user.to_owned());
                    DueRow::Usage { workspace, user }
                }
                _ => return None,
            };
            let since = item.get("due_at")?.as_n().ok()?.parse().ok()?;
            Some(Due { what, since })
        };
        Ok(keys.iter().filter_map(name).collect())
    }

    async fn run_started(&self, run: &str, at: Millis) -> Result<(), Fault> {
        let update = ("SET started = if_not_exists(started, :v)", number(at));
        self.update_if_there(items::run_key(run), update, "marking a run as started")
            .await
    }

    async fn change_run(&self, run: &str, change: &RunChange) -> Result<(), Fault> {
        self.write_run_change(run, change).await
    }

    async fn remove_run_files(&self, row: &RunRow) -> Result<Result<(), Failure>, Fault> {
        match self.run_files.remove(row).await {
            Ok(()) => Ok(Ok(())),
            Err(snapshots::Fault::Wrong(failure)) => Ok(Err(failure)),
            Err(fault) => Err(Fault::outside("removing the files of a run")(fault.into())),
        }
    }

    async fn forget_run(&self, row: &RunRow) -> Result<(), Fault> {
        self.remove_run(row).await
    }

    async fn keep_setup(&self, operation: &str, setup: &Setup) -> Result<(), Fault> {
        let update = ("SET setup = :v", json(setup));
        self.update_if_there(items::operation_key(operation), update, "keeping how an install ended")
            .await
    }

    async fn load_refused(&self, flow: &str) -> Result<Option<NetworkRow>, Fault> {
        self.load_body(items::network_key(flow)).await
    }

    async fn keep_refused(&self, flow: &str, row: &NetworkRow) -> Result<(), Fault> {
        let updated = self
            .dynamo
            .update_item()
            .table_name(&self.table)
            .set_key(Some(items::network_key(flow)))
            .update_expression("SET body = :body, of_generation = :generation, counted = :counted")
            .condition_expression(
                "attribute_not_exists(pk) OR of_generation < :generation OR (of_generation = :generation AND counted <= :counted)",
            )
            .expression_attribute_values(":body", json(row))
            .expression_attribute_values(":generation", number(row.generation))
            .expression_attribute_values(":counted", number(row.refused.total))
            .send()
            .await;
        is_written(updated, "keeping what was refused").map(drop)
    }

    async fn load_used(&self, flow: &str) -> Result<Option<UsedRow>, Fault> {
        self.load_body(items::used_key(flow)).await
    }

    async fn keep_used(&self, flow: &str, row: &UsedRow) -> Result<(), Fault> {
        let kept = self
            .dynamo
            .update_item()
            .table_name(&self.table)
            .set_key(Some(items::used_key(flow)))
            .update_expression("SET body = :body")
            .expression_attribute_values(":body", json(row))
            .send()
            .await;
        is_written(kept, "keeping what runs used").map(drop)
    }

    async fn keep_output(&self, of: &str, lines: &[OutputLine]) -> Result<(), Fault> {
        let until = self.now() / 1000 + KEPT;
        for part in parts(lines) {
            let mut item = items::output_key(of, part);
            item.insert("body".to_owned(), json(&part));
            item.insert("expires_at".to_owned(), number(until));
            let put = self.dynamo.put_item().table_name(&self.table).set_item(Some(item));
            put.send()
                .await
                .map_err(|e| Fault::outside("keeping output")(e.into()))?;
        }
        Ok(())
    }
}

/// The most bytes of lines in one row; DynamoDB takes 400 KB, and JSON may write a byte as six.
const MOST_OF_A_ROW: usize = 48 << 10;

/// Lines as they lie in rows: a row costs as much as its bytes, and one for each line would cost a
/// kilobyte each.
fn parts(lines: &[OutputLine]) -> Vec<&[OutputLine]> {
    let (mut parts, mut first, mut bytes) = (Vec::new(), 0, 0);
    for (at, line) in lines.iter().enumerate() {
        if bytes + line.text.len() > MOST_OF_A_ROW && at > first {
            parts.push(&lines[first..at]);
            (first, bytes) = (at, 0);
        }
        bytes += line.text.len();
    }
    if first < lines.len() {
        parts.push(&lines[first..]);
    }
    parts
}

impl Aws {
    /// Changes a row, if there is one.
    ///
    /// * `update`: the expression, and the value of its `:v`.
    /// * `what`: what that is, for the fault.
    async fn update_if_there(
        &self,
        key: Item,
        (update, value): (&str, AttributeValue),
        what: &'static str,
    ) -> Result<(), Fault> {
        let updated = self
            .dynamo
            .update_item()
            .table_name(&self.table)
            .set_key(Some(key))
            .update_expression(update)
            .condition_expression("attribute_exists(pk)")
            .expression_attribute_values(":v", value)
            .send()
            .await;
        is_written(updated, what).map(drop)
    }

    /// Reads the body of a row.
    async fn load_body<T: DeserializeOwned>(&self, key: Item) -> Result<Option<T>, Fault> {
        self.get(key).await?.map(|item| items::body(&item)).transpose()
    }

    pub(crate) async fn get(&self, key: Item) -> Result<Option<Item>, Fault> {
        let got = self
            .dynamo
            .get_item()
            .table_name(&self.table)
            .set_key(Some(key))
            .consistent_read(true)
            .send()
            .await;
        got.map(|got| got.item)
            .map_err(|e| Fault::outside("reading a row")(e.into()))
    }
}

pub(crate) fn require<'a>(value: &'a Option<String>, variable: &'static str) -> Result<&'a str, Fault> {
    value
        .as_deref()
        .ok_or_else(|| Fault::outside("reading the environment")(format!("{variable} is not set").into()))
}

/// Whether it was written; it was not if the condition did not hold.
///
/// # Errors
///
/// [`Fault::Outside`], worth a retry.
pub(crate) fn is_written<T, E>(sent: Result<T, SdkError<E>>, what: &'static str) -> Result<bool, Fault>
where
    E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
{
    match sent {
        Ok(_) => Ok(true),
        Err(error) if error.code() == Some("ConditionalCheckFailedException") => Ok(false),
        Err(error) => Err(Fault::outside(what)(error.into())),
    }
}
