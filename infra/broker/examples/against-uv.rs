//! The cost of the broker: the same packages installed by uv alone and through a broker, in turn,
//! each with an empty cache of uv's.
//!
//!     cargo run --release -p broker --example against-uv -- UV PYTHON ROUNDS PACKAGE...
//!
//! `UV_DEFAULT_INDEX`, `SSL_CERT_FILE` count as for uv.

use broker::{Broker, Config, Feed, Kind, Network, Roots};
use std::{
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};
use url::Url;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [uv, python, rounds, packages @ ..] = &arguments[..] else {
        eprintln!("against-uv UV PYTHON ROUNDS PACKAGE...");
        std::process::exit(2);
    };
    let place = std::env::temp_dir().join(format!("against-uv-{}", std::process::id()));
    let index = std::env::var("UV_DEFAULT_INDEX").unwrap_or_else(|_| "https://pypi.org/simple".into());
    let rounds: usize = rounds.parse().expect("a number of rounds");
    if rounds == 0 {
        let broker = start(&index, place.join("downloads"));
        println!("{}", broker.address(0));
        std::thread::sleep(Duration::from_secs(100));
    }
    let mut times = [
        ("uv alone", Vec::new()),
        ("cold broker", Vec::new()),
        ("warm broker", Vec::new()),
    ];
    for _ in 0..rounds {
        let _ = std::fs::remove_dir_all(&place);
        let install = |index: &str| install(uv, python, packages, index, &place);
        times[0].1.push(install(&index));
        for time in &mut times[1..] {
            let broker = start(&index, place.join("downloads"));
            time.1.push(install(&broker.address(0)));
        }
    }
    let _ = std::fs::remove_dir_all(&place);
    let median = |times: &[f64]| {
        let mut times = times.to_vec();
        times.sort_by(f64::total_cmp);
        times[times.len() / 2]
    };
    let alone = median(&times[0].1);
    for (what, times) in &times {
        let time = median(times);
        println!(
            "{what:12} {time:7.2} s, {:.2} times uv alone, of {rounds} ({times:.2?})",
            time / alone
        );
    }
}

fn start(index: &str, downloads: PathBuf) -> Broker {
    let roots = std::env::var_os("SSL_CERT_FILE").and_then(|path| std::fs::read(path).ok());
    let config = Config {
        feeds: vec![Feed {
            url: Url::parse(index).expect("a URL"),
            credential: None,
            kind: Kind::Index,
            names: broker::Names::default(),
        }],
        insecure: Vec::new(),
        network: Network {
            roots: roots.map_or(Roots::Mozilla, |text| Roots::Pem(vec![text])),
            http_proxy: None,
            https_proxy: None,
            no_proxy: Vec::new(),
            timeout: Duration::from_secs(30),
            retries: 3,
            is_offline: false,
        },
        is_refreshing: false,
        downloads,
    };
    Broker::start(config).expect("a broker")
}

/// Resolves to a lock with hashes, and installs that, as the store does: each with an empty cache.
/// In seconds.
fn install(uv: &str, python: &str, packages: &[String], index: &str, place: &Path) -> f64 {
    let (input, lock, target) = (place.join("in.txt"), place.join("lock.txt"), place.join("target"));
    std::fs::create_dir_all(place).expect("a folder");
    let _ = std::fs::remove_dir_all(&target);
    std::fs::write(&input, packages.join("\n")).expect("a file");
    let cache = place.join("cache");
    let _ = std::fs::remove_dir_all(&cache);
    let is_alone = !index.contains("127.0.0.1");
    let run = |words: &[&str]| {
        // Alone, uv has one cache for both.
        if !is_alone {
            let _ = std::fs::remove_dir_all(&cache);
        }
        let begun = Instant::now();
        let done = Command::new(uv)
            .args(words)
            .args(["--quiet", "--no-config", "--python", python, "--cache-dir"])
            .arg(&cache)
            .args(["--default-index", index])
            .status();
        assert!(done.is_ok_and(|done| done.success()), "{words:?}");
        eprintln!("{} {:.2} s", words[1], begun.elapsed().as_secs_f64());
    };
    let shown = |path: &Path| path.display().to_string();
    let begun = Instant::now();
    run(&[
        "pip",
        "compile",
        "--generate-hashes",
        "--output-file",
        &shown(&lock),
        &shown(&input),
    ]);
    run(&[
        "pip",
        "install",
        "--link-mode=copy",
        "--require-hashes",
        "--target",
        &shown(&target),
        "-r",
        &shown(&lock),
    ]);
    let seconds = begun.elapsed().as_secs_f64();
    let _ = std::fs::remove_file(&lock);
    seconds
}
