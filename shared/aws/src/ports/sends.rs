//! The messages, executions and answers that a decision sends.

use super::require;
use crate::{Aws, trace};
use aws_sdk_sqs::types::{MessageSystemAttributeNameForSends, MessageSystemAttributeValue};
use contract::{
    Millis,
    agent::AgentCommand,
    command::{Command, Wanted, Wish},
    names,
    notice::Notice,
    row::SessionRow,
    step::ExecutionInput,
};
use lifecycle::{Failure, session::Packages};
use serde::Serialize;
use shell::{Fault, Ports};
use std::collections::HashMap;

impl Aws {
    /// The lock that an install is to bring the environment to; `None` has it resolve the
    /// requirements.
    pub(super) async fn lock_of(&self, flow: &str, packages: Packages) -> Result<Option<String>, Fault> {
        Ok(match packages {
            Packages::Required | Packages::Anew => None,
            Packages::Recorded => self.load_packages(flow).await?.map(|row| row.lock),
            Packages::Locked(lock) => Some(lock),
        })
    }

    /// Tells the agent of a run, unless that has ended meanwhile.
    pub(super) async fn send_run(&self, row: &SessionRow, generation: u32, run: String) -> Result<(), Fault> {
        let Some(wanted) = self.load_run(&run).await?.filter(|wanted| !wanted.status.is_final()) else {
            return Ok(());
        };
        let mut settings = row.session.settings.clone();
        if let Some(folder) = wanted.folder {
            settings.folder.value = folder;
        }
        let wish = wanted.wish;
        self.tell_agent(
            &row.session.flow,
            generation,
            &AgentCommand::Run { run, settings, wish },
        )
        .await
    }

    /// Says that a session is to be deleted, with the command that puts it off.
    pub(super) async fn warn_idle(&self, row: &SessionRow, generation: u32, due: Millis) -> Result<(), Fault> {
        let key = row.session.flow.clone();
        let extend = Command {
            id: format!("extend-{key}-{due}"),
            flow: row.flow.clone(),
            principal: None,
            wish: Wish::Update {
                settings: Wanted::default(),
            },
        };
        let notice = Notice::DeletedSoon {
            flow: row.flow.clone(),
            key,
            generation,
            due,
            idle: row.session.settings.idle.value,
            extend,
        };
        self.notify(&notice).await
    }

    /// Sends a notice. Where nobody takes notices, the history has it.
    pub(super) async fn notify(&self, notice: &Notice) -> Result<(), Fault> {
        let Some(queue) = &self.notices else { return Ok(()) };
        let sent = self.sqs.send_message().queue_url(queue).message_body(body_of(notice));
        sent.send()
            .await
            .map(|_| ())
            .map_err(|e| Fault::outside("sending a notice")(e.into()))
    }

    pub(super) async fn start_execution(&self, input: &ExecutionInput) -> Result<(), Fault> {
        let machine = require(&self.state_machine, names::STATE_MACHINE)?;
        let started = self
            .sfn
            .start_execution()
            .state_machine_arn(machine)
            .name(&input.operation)
            .input(body_of(input))
            .set_trace_header(trace::current())
            .send()
            .await;
        match started {
            // Started before: that is what was wanted.
            Err(e) if e.as_service_error().is_some_and(|e| e.is_execution_already_exists()) => Ok(()),
            Err(e) => Err(Fault::outside("starting an execution")(e.into())),
            Ok(_) => Ok(()),
        }
    }

    pub(super) async fn answer_step(&self, token: &str, failure: Option<Failure>) -> Result<(), Fault> {
        match failure {
            None => match self.sfn.send_task_success().task_token(token).output("{}").send().await {
                Err(e)
                    if !e.as_service_error().is_some_and(|e| {
                        e.is_task_does_not_exist() || e.is_task_timed_out() || e.is_invalid_token()
                    }) =>
                {
                    Err(Fault::outside("answering a step")(e.into()))
                }
                _ => Ok(()),
            },
            Some(Failure { error, message }) => {
                let answer = self
                    .sfn
                    .send_task_failure()
                    .task_token(token)
                    .error(error.as_str())
                    .cause(message)
                    .send()
                    .await;
                match answer {
                    Err(e)
                        if !e.as_service_error().is_some_and(|e| {
                            e.is_task_does_not_exist() || e.is_task_timed_out() || e.is_invalid_token()
                        }) =>
                    {
                        Err(Fault::outside("answering a step")(e.into()))
                    }
                    _ => Ok(()),
                }
            }
        }
    }

    pub(super) async fn tell_agent(&self, flow: &str, generation: u32, command: &AgentCommand) -> Result<(), Fault> {
        let beside = require(&self.compute_requests, names::COMPUTE_REQUESTS.url_variable)?;
        let queue = names::agent_queue_url(beside, flow, generation).ok_or_else(|| {
            Fault::outside("reading the environment")(format!("{beside} is no queue of compute requests").into())
        })?;
        match self
            .sqs
            .send_message()
            .queue_url(queue)
            .set_message_system_attributes(trace_attribute())
            .message_body(body_of(command))
            .send()
            .await
        {
            // The session went, and its queue with it.
            Err(e) if e.as_service_error().is_some_and(|e| e.is_queue_does_not_exist()) => Ok(()),
            Err(e) => Err(Fault::outside("telling the agent")(e.into())),
            Ok(_) => Ok(()),
        }
    }

    /// Moves an invalid message to the dead-letter queue.
    pub(crate) async fn bury(&self, body: &str, group: &str, id: &str) -> Result<(), Fault> {
        let queue = require(&self.commands_dead, names::COMMANDS_DEAD.url_variable)?;
        let sent = self
            .sqs
            .send_message()
            .queue_url(queue)
            .message_body(body)
            .message_group_id(group)
            .message_deduplication_id(id)
            .send()
            .await;
        sent.map(|_| ())
            .map_err(|e| Fault::outside("putting a message into the dead-letter queue")(e.into()))
    }
}

/// The trace that a message goes on with.
pub(super) fn trace_attribute() -> Option<HashMap<MessageSystemAttributeNameForSends, MessageSystemAttributeValue>> {
    let value = MessageSystemAttributeValue::builder()
        .data_type("String")
        .string_value(trace::current()?)
        .build()
        .expect("an attribute has a type");
    Some(HashMap::from([(
        MessageSystemAttributeNameForSends::AwsTraceHeader,
        value,
    )]))
}

pub(super) fn body_of(message: &impl Serialize) -> String {
    contract::message(message).expect("a message is always JSON")
}
