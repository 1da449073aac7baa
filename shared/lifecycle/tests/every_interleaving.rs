//! Searches every interleaving of the core up to a bound.

mod search;

use lifecycle::session::Kind;
use search::{
    search,
    world::{Bounds, Core, Wish},
};

fn is_long() -> bool {
    std::env::var("PFSESSION_SEARCH").is_ok_and(|how| how == "long")
}

#[test]
fn one_flow_over_two_generations() {
    let bounds = Bounds {
        owners: vec!["u"],
        menu: vec![
            Wish::Operation(Kind::Start),
            Wish::Operation(Kind::Stop),
            Wish::Operation(Kind::Install),
            Wish::Operation(Kind::Reset),
            Wish::Run,
        ],
        commands: 2,
        faults: 1,
        activities: 0,
        asks: 0,
    };
    search(&Core::REAL, &bounds, if is_long() { 3_000_000 } else { 60_000 }).expect_whole("one flow");
}
