//! Real sessions that run real flows, on this machine.
//!
//! It is its own agent program, so it has no test harness: an argument is a part of the names of
//! the tests to run.

mod builds;
#[allow(dead_code, reason = "shared with others")]
#[path = "../common/mod.rs"]
mod common;
mod connections;
mod ends;
mod files;
mod flows;
mod installs;
mod isolation;
mod network;
mod projects;
mod providers;
mod remedies;
mod runs;
mod spans;
mod support;
mod tools;

use builds::*;
use common::{DAG, Machine, flow, index::Index, provider::Provider, settings, state, tiers};
use connections::*;
use contract::{
    agent::{AgentCommand, AgentReport, Chunk, LineKind, OutputLine, RunResult},
    command::RunWish,
    driver::{ComputeRequest, DriverReport},
};
use ends::*;
use files::*;
use flows::*;
use installs::*;
use isolation::*;
use lifecycle::network::Network;
use network::*;
use projects::*;
use providers::*;
use remedies::*;
use runs::*;
use serde_json::{Value, json};
use spans::*;
use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::TcpListener,
    panic::AssertUnwindSafe,
    path::Path,
    sync::mpsc,
    time::{Duration, Instant},
};
use support::*;
use tools::*;

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|first| first == "agent") {
        return agent::supervise();
    }
    // One that every user can read, as some tests are an ordinary user's.
    if let Some(python) = tiers::python_for_all() {
        // SAFETY: there is no other thread yet.
        unsafe { std::env::set_var("PFSESSION_PYTHON", python) };
    }
    if let [first, tier] = &arguments[..]
        && first == "inner"
    {
        if tier == "disk" {
            a_small_disk_is_filled();
            return Ok(());
        }
        if tier == "A" {
            a_session_is_held_to_its_vm_size_where_groups_can_be_made_and_says_so_where_not();
        }
        // The last, as it lets the warm process go.
        a_session_of_tier(tier);
        return Ok(());
    }
    let tests: &[(&str, fn())] = &[
        (
            "a_dag_flow_runs_over_lines_of_data_and_keeps_their_order",
            a_dag_flow_runs_over_lines_of_data_and_keeps_their_order,
        ),
        (
            "package_tools_and_connections_of_their_own_type_come_from_a_wheel",
            package_tools_and_connections_of_their_own_type_come_from_a_wheel,
        ),
        (
            "a_node_asks_by_the_connection_and_deployment_that_replace_its_own",
            a_node_asks_by_the_connection_and_deployment_that_replace_its_own,
        ),
        (
            "a_changed_secret_counts_in_the_next_run_of_the_session",
            a_changed_secret_counts_in_the_next_run_of_the_session,
        ),
        (
            "a_connection_without_a_key_sends_the_token_of_the_runs_identity",
            a_connection_without_a_key_sends_the_token_of_the_runs_identity,
        ),
        (
            "a_client_of_promptflow_serves_each_of_eight_lines_with_a_new_filelock",
            a_client_of_promptflow_serves_each_of_eight_lines_with_a_new_filelock,
        ),
        (
            "data_that_is_no_utf8_or_no_table_is_refused_with_its_line",
            data_that_is_no_utf8_or_no_table_is_refused_with_its_line,
        ),
        (
            "as_many_lines_run_at_once_as_a_run_wants",
            as_many_lines_run_at_once_as_a_run_wants,
        ),
        (
            "a_column_that_gives_way_to_a_default_is_said_in_the_log",
            a_column_that_gives_way_to_a_default_is_said_in_the_log,
        ),
        (
            "a_secret_is_not_told_also_where_it_is_cut",
            a_secret_is_not_told_also_where_it_is_cut,
        ),
        (
            "flex_and_class_flows_run_and_init_reaches_the_constructor",
            flex_and_class_flows_run_and_init_reaches_the_constructor,
        ),
        (
            "a_requirement_is_installed_on_top_of_the_base_and_imported",
            a_requirement_is_installed_on_top_of_the_base_and_imported,
        ),
        (
            "the_folders_own_project_has_its_commands_modules_and_metadata",
            the_folders_own_project_has_its_commands_modules_and_metadata,
        ),
        (
            "a_flows_code_finds_the_metadata_and_commands_of_its_own_project",
            a_flows_code_finds_the_metadata_and_commands_of_its_own_project,
        ),
        (
            "a_package_of_an_index_of_its_own_never_comes_from_another_one",
            a_package_of_an_index_of_its_own_never_comes_from_another_one,
        ),
        (
            "each_remedy_of_a_requirement_that_cannot_be_had_is_tried",
            each_remedy_of_a_requirement_that_cannot_be_had_is_tried,
        ),
        (
            "a_lock_that_is_gone_is_made_again_by_what_its_error_says",
            a_lock_that_is_gone_is_made_again_by_what_its_error_says,
        ),
        (
            "a_folder_has_the_python_that_it_asks_for",
            a_folder_has_the_python_that_it_asks_for,
        ),
        (
            "an_install_into_a_session_in_use_swaps_the_packages_and_a_failed_one_leaves_them",
            an_install_into_a_session_in_use_swaps_the_packages_and_a_failed_one_leaves_them,
        ),
        (
            "what_is_installed_is_reported_with_why_it_is_there_also_what_a_run_does_by_hand",
            what_is_installed_is_reported_with_why_it_is_there_also_what_a_run_does_by_hand,
        ),
        (
            "a_lock_brings_back_what_was_installed_also_when_its_environment_is_gone",
            a_lock_brings_back_what_was_installed_also_when_its_environment_is_gone,
        ),
        (
            "every_form_of_requirement_does_with_a_small_index_what_it_says",
            every_form_of_requirement_does_with_a_small_index_what_it_says,
        ),
        (
            "the_connections_of_a_run_reach_its_own_process_and_nothing_else",
            the_connections_of_a_run_reach_its_own_process_and_nothing_else,
        ),
        (
            "flows_of_each_kind_ask_a_provider_by_the_connection_that_they_name",
            flows_of_each_kind_ask_a_provider_by_the_connection_that_they_name,
        ),
        (
            "a_line_that_its_provider_turns_away_is_run_again_and_that_is_counted",
            a_line_that_its_provider_turns_away_is_run_again_and_that_is_counted,
        ),
        (
            "a_key_that_a_broker_holds_is_in_nothing_that_a_flow_can_reach",
            a_key_that_a_broker_holds_is_in_nothing_that_a_flow_can_reach,
        ),
        (
            "a_secret_is_nowhere_after_a_kill_of_its_run_its_agent_and_the_host",
            a_secret_is_nowhere_after_a_kill_of_its_run_its_agent_and_the_host,
        ),
        (
            "a_connection_that_is_not_there_is_named_with_those_that_are",
            a_connection_that_is_not_there_is_named_with_those_that_are,
        ),
        (
            "no_install_takes_away_what_the_base_image_loads",
            no_install_takes_away_what_the_base_image_loads,
        ),
        (
            "a_find_links_line_that_names_a_folder_of_the_host_is_refused",
            a_find_links_line_that_names_a_folder_of_the_host_is_refused,
        ),
        (
            "a_build_script_that_writes_everywhere_changes_no_other_install",
            a_build_script_that_writes_everywhere_changes_no_other_install,
        ),
        (
            "a_build_script_that_swaps_its_lock_for_a_link_shows_no_file_of_the_host",
            a_build_script_that_swaps_its_lock_for_a_link_shows_no_file_of_the_host,
        ),
        (
            "a_build_script_finds_no_credential_wherever_it_looks",
            a_build_script_finds_no_credential_wherever_it_looks,
        ),
        (
            "the_credential_of_a_private_feed_reaches_the_feed_and_nothing_else",
            the_credential_of_a_private_feed_reaches_the_feed_and_nothing_else,
        ),
        (
            "an_edit_counts_in_the_next_run_and_what_a_run_writes_goes_to_its_own_folder",
            an_edit_counts_in_the_next_run_and_what_a_run_writes_goes_to_its_own_folder,
        ),
        (
            "a_flow_sees_its_own_folder_and_nothing_of_the_machine",
            a_flow_sees_its_own_folder_and_nothing_of_the_machine,
        ),
        (
            "a_session_is_held_to_its_vm_size_where_groups_can_be_made_and_says_so_where_not",
            a_session_is_held_to_its_vm_size_where_groups_can_be_made_and_says_so_where_not,
        ),
        (
            "each_tier_holds_what_it_says_as_an_ordinary_user_and_as_root",
            each_tier_holds_what_it_says_as_an_ordinary_user_and_as_root,
        ),
        (
            "two_sessions_with_one_environment_cannot_see_or_change_each_other",
            two_sessions_with_one_environment_cannot_see_or_change_each_other,
        ),
        (
            "a_session_reaches_what_its_network_allows_and_reports_the_rest",
            a_session_reaches_what_its_network_allows_and_reports_the_rest,
        ),
        (
            "nothing_in_a_sandbox_reaches_the_agents_secrets",
            nothing_in_a_sandbox_reaches_the_agents_secrets,
        ),
        (
            "failures_of_runs_have_names_and_say_what_to_do",
            failures_of_runs_have_names_and_say_what_to_do,
        ),
        ("what_a_run_used_is_measured", what_a_run_used_is_measured),
        (
            "failures_of_installs_have_names_and_say_what_to_do",
            failures_of_installs_have_names_and_say_what_to_do,
        ),
        (
            "values_that_json_hardly_holds_come_back_as_they_are_or_fail_their_line",
            values_that_json_hardly_holds_come_back_as_they_are_or_fail_their_line,
        ),
        (
            "a_run_is_judged_by_how_its_processes_ended_whatever_they_write",
            a_run_is_judged_by_how_its_processes_ended_whatever_they_write,
        ),
        (
            "an_aggregation_gives_metrics_and_one_that_fails_is_told",
            an_aggregation_gives_metrics_and_one_that_fails_is_told,
        ),
        (
            "pieces_of_an_output_come_in_order_before_its_end_within_bounds_and_the_end_is_whole",
            pieces_of_an_output_come_in_order_before_its_end_within_bounds_and_the_end_is_whole,
        ),
        (
            "the_spans_of_a_run_go_to_the_endpoint_that_it_names_and_are_kept_with_it",
            the_spans_of_a_run_go_to_the_endpoint_that_it_names_and_are_kept_with_it,
        ),
        (
            "a_flows_file_is_read_before_the_run_that_asks_for_it_and_each_reader_has_its_own",
            a_flows_file_is_read_before_the_run_that_asks_for_it_and_each_reader_has_its_own,
        ),
        (
            "spans_that_are_kept_have_their_line_and_bounds_and_what_is_cut_is_said",
            spans_that_are_kept_have_their_line_and_bounds_and_what_is_cut_is_said,
        ),
        (
            "a_connection_without_a_key_says_what_gives_the_run_an_identity",
            a_connection_without_a_key_says_what_gives_the_run_an_identity,
        ),
        (
            "lines_that_wait_share_the_processor",
            lines_that_wait_share_the_processor,
        ),
        (
            "a_variable_that_no_process_takes_is_refused_and_the_runner_lives_on",
            a_variable_that_no_process_takes_is_refused_and_the_runner_lives_on,
        ),
        (
            "a_flow_is_given_by_its_file_or_entry_and_reads_an_earlier_run",
            a_flow_is_given_by_its_file_or_entry_and_reads_an_earlier_run,
        ),
        (
            "a_long_line_of_output_is_whole_in_the_log",
            a_long_line_of_output_is_whole_in_the_log,
        ),
        (
            "a_command_that_comes_twice_is_done_once",
            a_command_that_comes_twice_is_done_once,
        ),
        (
            "a_report_is_signed_with_the_sessions_own_key",
            a_report_is_signed_with_the_sessions_own_key,
        ),
        (
            "a_launch_that_is_late_or_was_removed_never_starts_an_agent",
            a_launch_that_is_late_or_was_removed_never_starts_an_agent,
        ),
        (
            "an_agent_that_is_killed_takes_its_sandbox_with_it_and_is_reported",
            an_agent_that_is_killed_takes_its_sandbox_with_it_and_is_reported,
        ),
        (
            "a_runner_that_is_killed_fails_its_runs_and_the_next_one_runs",
            a_runner_that_is_killed_fails_its_runs_and_the_next_one_runs,
        ),
        (
            "a_host_that_comes_back_finds_its_agents_and_reports_the_dead",
            a_host_that_comes_back_finds_its_agents_and_reports_the_dead,
        ),
        (
            "a_released_compute_takes_its_sessions_with_it",
            a_released_compute_takes_its_sessions_with_it,
        ),
        (
            "what_a_run_leaves_behind_ends_with_it_and_only_its_own_files_are_kept",
            what_a_run_leaves_behind_ends_with_it_and_only_its_own_files_are_kept,
        ),
        (
            "files_over_a_bound_and_data_over_a_bound_are_named_and_nothing_hangs",
            files_over_a_bound_and_data_over_a_bound_are_named_and_nothing_hangs,
        ),
        (
            "on_a_small_disk_a_session_that_fills_it_gives_way_and_others_go_on",
            on_a_small_disk_a_session_that_fills_it_gives_way_and_others_go_on,
        ),
        (
            "what_a_session_leaves_is_removed_by_another_process_in_any_depth",
            what_a_session_leaves_is_removed_by_another_process_in_any_depth,
        ),
    ];
    let wanted: Vec<&String> = arguments.iter().filter(|argument| !argument.starts_with('-')).collect();
    if arguments.iter().any(|argument| argument == "--list") {
        tests.iter().for_each(|(name, _)| println!("{name}: test"));
        return Ok(());
    }
    let mut failed = Vec::new();
    let takes_a_minute = "an_agent_whose_lease_is_not_renewed_ends";
    let is_wanted = wanted.is_empty() || wanted.iter().any(|part| takes_a_minute.contains(part.as_str()));
    let beside = is_wanted.then(|| std::thread::spawn(an_agent_whose_lease_is_not_renewed_ends));
    for (name, test) in tests
        .iter()
        .filter(|(name, _)| wanted.is_empty() || wanted.iter().any(|part| name.contains(part.as_str())))
    {
        let begun = Instant::now();
        let result = std::panic::catch_unwind(AssertUnwindSafe(test));
        println!(
            "test {name} ... {} ({:.1} s)",
            if result.is_ok() { "ok" } else { "FAILED" },
            begun.elapsed().as_secs_f32()
        );
        if result.is_err() {
            failed.push(*name);
        }
    }
    // The warm process would stay for a while.
    Machine::new(&state()).driver.let_go();
    if let Some(beside) = beside {
        let result = beside.join();
        println!(
            "test {takes_a_minute} ... {}",
            if result.is_ok() { "ok" } else { "FAILED" }
        );
        if result.is_err() {
            failed.push(takes_a_minute);
        }
    }
    anyhow::ensure!(failed.is_empty(), "{} failed: {}", failed.len(), failed.join(", "));
    Ok(())
}
