//! Takes the commands of the control plane from the session's queue.

use super::{Agent, install::Packages};
use crate::sqs;
use contract::{
    agent::{AgentCommand, public_half},
    command::is_good_id,
};
use environments::reach::Reach;
use std::{rc::Rc, time::Duration};
use tokio::task::spawn_local;

impl Agent {
    pub(super) async fn take_commands(self: Rc<Self>) {
        let mut silent = false;
        loop {
            let received = self
                .client
                .receive_message()
                .queue_url(&self.spec.queue_url)
                .max_number_of_messages(10)
                .wait_time_seconds(20)
                .send()
                .await;
            let messages = match received {
                Ok(received) => {
                    silent = false;
                    received.messages.unwrap_or_default()
                }
                Err(error) => {
                    if !std::mem::replace(&mut silent, true) {
                        tracing::warn!(error = %sqs::chain(&error), "the session's queue does not answer");
                    }
                    tokio::time::sleep(Duration::from_millis(250)).await;
                    continue;
                }
            };
            for message in messages {
                match serde_json::from_str(message.body().unwrap_or_default()) {
                    Ok(command) => self.take(command),
                    Err(error) => tracing::warn!(%error, "a message is no command"),
                }
                let Some(receipt) = message.receipt_handle else {
                    continue;
                };
                let agent = Rc::clone(&self);
                spawn_local(async move {
                    // One that is not deleted comes again, and is taken as once.
                    let deleted = agent
                        .client
                        .delete_message()
                        .queue_url(&agent.spec.queue_url)
                        .receipt_handle(receipt)
                        .send()
                        .await;
                    if let Err(error) = deleted {
                        tracing::debug!(error = %sqs::chain(&error), "a command that was taken comes again");
                    }
                });
            }
        }
    }

    fn take(self: &Rc<Self>, command: AgentCommand) {
        match command {
            AgentCommand::Greet { token } => {
                spawn_local(Rc::clone(self).greet(token));
            }
            AgentCommand::Lease { nonce } => {
                if let Some(at) = self.asked.borrow_mut().remove(&nonce) {
                    self.leased.set(self.leased.get().max(at));
                }
            }
            AgentCommand::Install {
                operation,
                attempt,
                settings,
                lock,
                resolve,
            } => self.take_install(operation, attempt, settings, Packages { lock, resolve }),
            AgentCommand::CancelInstall { operation } => {
                let mut install = self.install.borrow_mut();
                if install.as_ref().is_some_and(|install| install.operation == operation) {
                    tracing::info!(operation, "the install is canceled");
                    if let Some(install) = install.take() {
                        install.task.abort();
                    }
                }
            }
            AgentCommand::Network {
                revision,
                network,
                allow_hosts,
            } => {
                if self.network_revision.get().is_none_or(|known| known < revision) {
                    self.network_revision.set(Some(revision));
                    self.reach(Reach::new(network, &allow_hosts));
                }
            }
            AgentCommand::CancelRun { run } => {
                if is_good_id(&run) {
                    spawn_local(Rc::clone(self).cancel(run));
                }
            }
            AgentCommand::Run { run, settings, wish } => {
                if is_good_id(&run) && self.known.borrow_mut().insert(run.clone()) {
                    self.open.borrow_mut().insert(run.clone());
                    spawn_local(Rc::clone(self).run(run, settings, wish));
                }
            }
        }
    }

    /// Has the session reach this from now on.
    pub(super) fn reach(&self, reach: Reach) {
        if let Some(runner) = self.runner.borrow().as_ref() {
            runner.set_reach(&reach);
        }
        if let Some(store) = &*self.store.borrow() {
            // Of the next step of an install.
            *store.reach.borrow_mut() = reach.clone();
        }
        *self.reach.borrow_mut() = reach;
    }

    /// Answers the maker of the container. One that may not go on ends with its answer.
    async fn greet(self: Rc<Self>, token: String) {
        if self.place.is_container() {
            self.place.answer(token, public_half(&self.key)).await;
            self.is_refused.set(self.place.refusal().is_some());
        }
    }
}
