//! The promised figures: `pfsession bench`, the same beside sessions that are idle in the table,
//! and sweeps over tables of many sessions.
//!
//!     cargo run --release -p whole-system --bin bench                     all of it cargo run
//!     --release -p whole-system --bin bench -- --short          the same with fewer rounds, and
//!     smaller sweeps cargo run --release -p whole-system --bin bench -- --sweep 1000000  one sweep
//!     over so many sessions, of which 100 are due

use aws_sdk_dynamodb::types::{AttributeValue, PutRequest, WriteRequest};
use contract::{FlowRef, Millis, Phase, row::SessionRow};
use lifecycle::session::{Session, Settings};
use std::{
    collections::BTreeMap,
    path::Path,
    process::Stdio,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};
use whole_system::{Machine, wait_for};

const LONG: Duration = Duration::from_secs(600);
/// The number of sessions that are due in a sweep.
const DUE: usize = 100;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let Some(at) = arguments.iter().position(|argument| argument == "--sweep") {
        let count = arguments.get(at + 1).and_then(|count| count.parse().ok());
        sweeps(&[count.expect("--sweep takes a number of sessions")]);
        return;
    }
    let is_short = arguments.iter().any(|argument| argument == "--short");
    let (rounds, at_once, beside): (_, _, &[&str]) = if is_short {
        ("5", "5", &["5", "0"])
    } else {
        ("41", "20", &["15", "0"])
    };
    println!("### Alone\n");
    bench(&Machine::new(), &["--rounds", rounds, "--at-once", at_once]);
    let machine = Machine::new();
    machine.up();
    load(&machine, 200, 0, now() + 3_600_000);
    println!("\n### Beside 200 idle sessions in the table\n");
    let state = text(machine.state());
    bench(
        &machine,
        &["--rounds", beside[0], "--at-once", beside[1], "--in", state],
    );
    println!("\n### Sweeps\n");
    sweeps(if is_short {
        &[100, 1_000]
    } else {
        &[1_000, 10_000, 100_000]
    });
}

/// The figures of a user's acts, on this machine.
fn bench(machine: &Machine, arguments: &[&str]) {
    let status = machine
        .command(&[&["bench"], arguments].concat())
        .stdout(Stdio::inherit())
        .status();
    assert!(
        status.is_ok_and(|status| status.success()),
        "pfsession bench has failed"
    );
}

/// The time of a sweep from the moment at which [`DUE`] of so many sessions are idle for too long.
fn sweeps(counts: &[usize]) {
    println!(
        "| sessions in the table, {DUE} of them due | from the due time to Stopped (median) | 90 % within | the last |"
    );
    println!("| --- | --- | --- | --- |");
    for count in counts {
        let mut times = sweep(*count);
        times.sort_unstable();
        let at = |part: usize| times[(times.len() - 1) * part / 100];
        println!("| {count} | {} ms | {} ms | {} ms |", at(50), at(90), at(100));
    }
}

/// From the moment at which [`DUE`] of so many sessions are idle for too long, to each one's
/// observed Stopped. The sweep looks every second.
fn sweep(count: usize) -> Vec<Millis> {
    let machine = Machine::new();
    machine.up();
    let begun = Instant::now();
    // Loading takes a while, and nothing is to be due before.
    let due = now() + 20_000 + count as u64 / 4;
    let keys = load(&machine, count, DUE, due);
    eprintln!(
        "{count} sessions are loaded after {:.1} s",
        begun.elapsed().as_secs_f64()
    );
    let api = machine.api();
    assert!(now() < due, "loading took longer than was thought");
    let mut ours = Vec::new();
    for key in keys {
        let session = wait_for("the end of an idle session", LONG, || {
            let session: contract::http::SessionView = api.get(&format!("/v1/sessions/{key}")).ok()?;
            (session.phase == Phase::Stopped).then_some(session)
        });
        let stop = api.get::<contract::http::Events>(&format!("/v1/sessions/{}/events", session.key));
        let last = stop.ok().and_then(|events| events.events.last().map(|row| row.at));
        ours.push(last.unwrap_or(due).saturating_sub(due));
    }
    ours
}

fn now() -> Millis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock");
    u64::try_from(since.as_millis()).expect("it is not so late")
}

/// Writes Ready sessions into the table of a host that is up, of which the first `due` are idle for
/// too long at the time `at`, and the others a day later. Returns the keys of those that are due.
fn load(machine: &Machine, count: usize, due: usize, at: Millis) -> Vec<String> {
    const DAY: Millis = 86_400_000;
    /// The most items of one `BatchWriteItem`.
    const PAGE: usize = 25;
    let dynamo = machine.dynamo();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let tables = runtime
        .block_on(dynamo.list_tables().send())
        .expect("the table is listed");
    let table = &tables.table_names()[0];
    let mut keys = Vec::new();
    for from in (0..count).step_by(PAGE) {
        let mut items = Vec::new();
        for nth in from..count.min(from + PAGE) {
            let flow = FlowRef {
                workspace: "local".to_owned(),
                owner: format!("user-{}", nth % 1000),
                lineage: format!("/flows/{nth}"),
            };
            let is_due = nth < due;
            let ends = if is_due { at } else { at + DAY };
            let settings = Settings {
                idle: 60_000.into(),
                ..Settings::new(flow.lineage.clone())
            };
            let key = flow.key();
            let mut session = Session::never(&key, &flow.workspace, &flow.owner, settings);
            session.revision = 1;
            session.generation = 1;
            session.phase = Phase::Ready;
            session.last_activity = ends - 60_000;
            session.alive_until = Some(ends + DAY);
            items.push(item(
                &SessionRow {
                    flow,
                    session,
                    outbox: BTreeMap::new(),
                },
                ends,
            ));
            if is_due {
                keys.push(key);
            }
        }
        let written = dynamo.batch_write_item().request_items(table, items).send();
        runtime.block_on(written).expect("they are taken");
    }
    keys
}

/// A session's row, as `shared/aws` writes it.
fn item(row: &SessionRow, due: Millis) -> WriteRequest {
    let session = &row.session;
    let shard = session
        .flow
        .bytes()
        .fold(0u32, |sum, byte| sum.wrapping_mul(31).wrapping_add(u32::from(byte)));
    let text = |text: String| AttributeValue::S(text);
    let item = [
        ("pk", text(format!("FLOW#{}", session.flow))),
        ("sk", text("SESSION".to_owned())),
        ("body", text(serde_json::to_string(row).expect("a row is JSON"))),
        ("revision", AttributeValue::N(session.revision.to_string())),
        ("owner", text(format!("{}#{}", session.workspace, session.owner))),
        ("phase", text("\"ready\"".to_owned())),
        ("outbox", AttributeValue::M(Default::default())),
        ("due_shard", text((shard % contract::names::DUE_SHARDS).to_string())),
        ("due_at", AttributeValue::N(due.to_string())),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into();
    let put = PutRequest::builder().set_item(Some(item)).build();
    WriteRequest::builder()
        .put_request(put.expect("a put has an item"))
        .build()
}

fn text(path: &Path) -> &str {
    path.to_str().expect("the path is text")
}
