//! The crate as its callers see it, on folders that each test writes down.

mod budgets;
mod connections;
mod faults;
mod folders;
mod fuzzed;
mod migrations;
mod own;
mod remedies;
mod repositories;
mod run_files;
mod samples;
mod snapshots;
mod tree;
