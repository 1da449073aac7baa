//! Searches every interleaving of the real core up to a bound, in a model world
//! (`search/world.rs`), for what must always hold (`search/properties.rs`), and from every state
//! reached for a stop that ends.
//!
//! The short form is part of `cargo test`. The long form goes deeper and takes some minutes a
//! world:
//!
//! ```sh
//! PFSESSION_SEARCH=long cargo test -p lifecycle --test every_interleaving -- --nocapture --test-threads 1
//! ```
//!
//! Both print the states visited. The search has no chance in it: the same core gives the same
//! numbers.

mod search;

use lifecycle::session::{EDGES, Kind, Phase};
use search::{
    search,
    world::{Bounds, Core, ON_DAILY, ON_INSTANCE, Wish},
};

const START: Wish = Wish::Operation(Kind::Start);
const STOP: Wish = Wish::Operation(Kind::Stop);
const INSTALL: Wish = Wish::Operation(Kind::Install);
const RESET: Wish = Wish::Operation(Kind::Reset);
const UPDATE: Wish = Wish::Operation(Kind::Update);

/// One of two numbers: for the short form, for the long form.
fn either<T>(short: T, long: T) -> T {
    if std::env::var("PFSESSION_SEARCH").is_ok_and(|form| form == "long") {
        long
    } else {
        short
    }
}

#[test]
fn one_flow_over_two_generations() {
    let bounds = Bounds {
        owners: vec!["u"],
        menu: either(
            vec![START, STOP, INSTALL, RESET, Wish::Run],
            vec![START, STOP, INSTALL, RESET, UPDATE, Wish::Run],
        ),
        commands: either(2, 3),
        faults: either(1, 2),
        activities: 0,
        asks: 0,
        drains: 0,
        starts: 0,
    };
    let found = search(&Core::REAL, &bounds, either(300_000, 3_000_000));
    found.expect_whole("one flow, two generations", either(true, false));
    // It goes everywhere, and nowhere else; a start that waits begins in the decision that ends
    // what it waited for.
    let two = |(from, to)| {
        [Phase::Stopped, Phase::Failed]
            .iter()
            .any(|rest| EDGES.contains(&(from, *rest)) && EDGES.contains(&(*rest, to)))
    };
    let elsewhere: Vec<_> = found
        .edges
        .iter()
        .filter(|edge| !EDGES.contains(edge) && !two(**edge))
        .collect();
    let missed: Vec<_> = EDGES.iter().filter(|edge| !found.edges.contains(edge)).collect();
    assert!(
        elsewhere.is_empty() && (missed.is_empty() || !found.is_complete),
        "elsewhere: {elsewhere:?}, missed: {missed:?}"
    );
}

#[test]
fn one_flow_that_is_used_and_asks_for_leases_at_any_moment() {
    let bounds = Bounds {
        owners: vec!["u"],
        menu: vec![STOP, Wish::Run],
        commands: either(1, 3),
        faults: either(1, 2),
        activities: 1,
        asks: 1,
        drains: 0,
        starts: 0,
    };
    let found = search(&Core::REAL, &bounds, either(60_000, 3_000_000));
    found.expect_whole("one flow, in use", either(true, false));
}

#[test]
fn one_flow_whose_settings_change() {
    let bounds = Bounds {
        owners: vec!["u"],
        menu: either(
            vec![START, Wish::Change, UPDATE],
            vec![START, STOP, INSTALL, Wish::Change, UPDATE, Wish::Run],
        ),
        commands: either(2, 3),
        faults: 1,
        activities: either(0, 1),
        asks: 0,
        drains: 0,
        starts: 0,
    };
    let found = search(&Core::REAL, &bounds, either(200_000, 3_000_000));
    found.expect_whole("one flow, whose settings change", either(true, false));
}

#[test]
fn two_flows_of_one_user_on_one_compute_resource() {
    let bounds = Bounds {
        owners: vec!["u", "u"],
        menu: vec![START, STOP],
        commands: either(1, 2),
        faults: 1,
        activities: 0,
        asks: 0,
        drains: 0,
        starts: 0,
    };
    let found = search(&Core::REAL, &bounds, either(100_000, 3_000_000));
    found.expect_whole("two flows of one user", either(true, false));
}

#[test]
fn two_users_with_a_compute_resource_each() {
    let bounds = Bounds {
        owners: vec!["u", "v"],
        menu: either(vec![START], vec![START, STOP]),
        commands: either(1, 2),
        faults: 2,
        activities: 0,
        asks: 0,
        drains: 0,
        starts: 0,
    };
    let found = search(&Core::REAL, &bounds, either(80_000, 3_000_000));
    found.expect_whole("two users", false);
}

#[test]
fn a_compute_resource_is_deleted_under_its_sessions() {
    let flow = Bounds {
        owners: vec!["u"],
        menu: either(vec![RESET, Wish::Run], vec![START, STOP, RESET, UPDATE, Wish::Run]),
        commands: 2,
        faults: either(0, 1),
        activities: 0,
        asks: 0,
        drains: either(1, 2),
        starts: 0,
    };
    let found = search(&Core::REAL, &flow, either(60_000, 3_000_000));
    found.expect_whole("a compute resource that is deleted", either(true, false));
    let at_fault = Bounds {
        menu: vec![Wish::Run],
        commands: 1,
        faults: either(1, 2),
        ..flow
    };
    let found = search(&Core::REAL, &at_fault, either(60_000, 3_000_000));
    found.expect_whole("a compute resource that is deleted, with faults", either(true, false));
    let two = Bounds {
        owners: vec!["u", "u"],
        menu: either(vec![START], vec![START, STOP, RESET]),
        commands: 1,
        faults: 1,
        ..at_fault
    };
    let found = search(&Core::REAL, &two, either(60_000, 3_000_000));
    found.expect_whole("a compute resource of two flows that is deleted", false);
}

#[test]
fn a_compute_instance_is_started_and_stopped_under_its_sessions() {
    let flow = Bounds {
        owners: vec![ON_INSTANCE],
        menu: either(vec![START, UPDATE], vec![START, STOP, RESET, UPDATE, Wish::Run]),
        commands: 2,
        faults: either(0, 1),
        activities: 0,
        asks: 0,
        drains: 1,
        starts: either(1, 2),
    };
    let found = search(&Core::REAL, &flow, either(60_000, 3_000_000));
    found.expect_whole("a compute instance", either(true, false));
    let at_fault = Bounds {
        menu: vec![Wish::Run],
        commands: 1,
        faults: either(1, 2),
        ..flow.clone()
    };
    let found = search(&Core::REAL, &at_fault, either(15_000, 3_000_000));
    found.expect_whole("a compute instance, with faults", false);
    let two = Bounds {
        owners: vec![ON_INSTANCE, ON_INSTANCE],
        menu: either(vec![START], vec![START, STOP, RESET]),
        commands: 1,
        faults: 1,
        ..flow
    };
    let found = search(&Core::REAL, &two, either(15_000, 3_000_000));
    found.expect_whole("a compute instance with two flows", false);
}

#[test]
fn the_time_of_a_users_day_is_used_up() {
    let one = Bounds {
        owners: vec![ON_DAILY],
        menu: either(
            vec![START, UPDATE, Wish::Run],
            vec![START, STOP, INSTALL, RESET, UPDATE, Wish::Run],
        ),
        commands: 2,
        faults: either(0, 2),
        activities: 0,
        asks: 0,
        drains: 0,
        starts: 0,
    };
    let found = search(&Core::REAL, &one, either(60_000, 3_000_000));
    found.expect_whole("the time of a day", either(true, false));
    let at_fault = Bounds {
        menu: vec![Wish::Run],
        commands: 1,
        faults: either(1, 2),
        ..one.clone()
    };
    let found = search(&Core::REAL, &at_fault, either(60_000, 3_000_000));
    found.expect_whole("the time of a day, with faults", false);
    let two = Bounds {
        owners: vec![ON_DAILY, ON_DAILY],
        menu: vec![START, STOP],
        commands: either(1, 2),
        faults: 1,
        ..one
    };
    let found = search(&Core::REAL, &two, either(40_000, 3_000_000));
    found.expect_whole("the time of a day, of two flows", false);
}
