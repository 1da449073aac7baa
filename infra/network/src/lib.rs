//! The network of a session: what it may reach, counted, and the stack that ends its connections
//! outside its sandbox.
//!
//! The session's namespace has one device, whose far end is here. A connection of the session ends
//! here, is judged, and is made anew from the machine's side, so that rules, names and counts lie
//! in one place, and change while the session lives.
//!
//! Absent here: who makes the namespace, sessions, queues, and where settings come from.

#![cfg_attr(not(test), warn(clippy::too_many_lines, clippy::cognitive_complexity))]

mod address;
mod dns;
mod link;
mod packet;
mod rules;
mod stack;
mod tcp;

pub use address::is_of_the_cloud;
pub use rules::{Counts, Refused, Rules};
pub use stack::{Ends, GATEWAY, Service, start};
