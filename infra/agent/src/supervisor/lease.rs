//! Keeps the lease: the session ends when it runs out.

use super::Agent;
use crate::{clock::boot_time, folders::identity};
use contract::agent::AgentReport;
use lifecycle::deadlines::LEASE;
use std::{rc::Rc, time::Duration};
use tokio::task::spawn_local;

impl Agent {
    /// Renews the lease at every third of it. Returns when it has run out, or when the state folder
    /// was replaced, as this session can then not be found to end it. No other message delays it.
    pub(super) async fn keep_the_lease(self: Rc<Self>) {
        let place = identity(&self.spec.state).ok().flatten();
        let is_let_in = self.place.refusal().is_none();
        let mut nonce = 0;
        let mut next = 0;
        loop {
            let now = boot_time();
            if now >= self.leased.get() + LEASE || self.is_refused.get() {
                return;
            }
            if place.is_some() && identity(&self.spec.state).is_ok_and(|now| now != place) {
                tracing::warn!(state = %self.spec.state.display(), "the state folder was taken away");
                return;
            }
            if now >= next {
                nonce += 1;
                let mut asked = self.asked.borrow_mut();
                asked.insert(nonce, now);
                asked.retain(|_, at| *at + LEASE > now);
                drop(asked);
                next = now + LEASE / 3;
                let alive = AgentReport::Alive {
                    nonce,
                    runs: self.open.borrow().iter().cloned().collect(),
                };
                if is_let_in {
                    let agent = Rc::clone(&self);
                    spawn_local(async move { agent.send(alive, Some(next)).await });
                }
                self.report_refused();
            }
            // The timer stands still while the machine sleeps; the clock is looked at again soon
            // after.
            tokio::time::sleep(Duration::from_millis((next - now).min(1000))).await;
        }
    }
}
