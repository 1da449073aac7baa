//! Fuzzing with the stable compiler and nothing besides: seeds that are changed at random, for a
//! time.
//!
//! A target is an ordinary test of the crate that it is about, so that it reaches what is private
//! there. It takes bytes, and fails by a panic or by taking too long. `PFSESSION_FUZZ_SECONDS` is
//! how long each target is fuzzed, 3 s unless it says otherwise; with 3600 it is an hour each.
//! Every target prints its seed, its inputs and its slowest one; `PFSESSION_FUZZ_SEED` goes the
//! same way again.
//!
//! Rejected: `cargo fuzz` and `bolero`'s engines need a nightly compiler or a program of their own
//! to be guided by the code that is reached. Without them `bolero` makes bytes at random, which no
//! parser of text lets further than its first character. What is given up is that guidance: seeds
//! and words of the format have to be good.

use std::{
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// The longest that an input may take, on a busy machine in a build for tests.
const SLOW: Duration = Duration::from_secs(10);
/// An input that takes longer ends the process: it may never end.
const HANGS: Duration = Duration::from_secs(60);
/// The most bytes of an input.
const LONGEST: usize = 64 << 10;

/// Numbers that look random, always the same ones for a seed.
///
/// # Source
///
/// SplitMix64: Steele, Lea and Flood, *Fast splittable pseudorandom number generators*, 2014.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, most: usize) -> usize {
        (self.next() % most.max(1) as u64) as usize
    }

    fn one_of<'a, T: ?Sized>(&mut self, all: &[&'a T]) -> &'a T {
        all[self.below(all.len())]
    }
}

/// Texts that break parsers of every kind.
const WORDS: [&str; 36] = [
    "\0",
    "\r\n",
    "\u{feff}",
    "\u{202e}",
    "é",
    "日本",
    "👩\u{200d}💻",
    "\u{85}",
    "\u{2028}",
    "\u{ffff}",
    "\x1b[31m",
    "\\",
    "'",
    "\"",
    "`",
    "#",
    "%",
    "${",
    "}",
    "{}",
    "[]",
    "[[[[[[[[",
    "{{{{{{{{",
    "((((((((",
    "- - - - ",
    "-1",
    "0",
    "1e999",
    "NaN",
    "18446744073709551616",
    "null",
    "true",
    "../../",
    "://",
    "\\ud800",
    "\\u0000",
];

/// Changes an input in one to eight places.
fn change(input: &mut Vec<u8>, random: &mut Random, others: &[Vec<u8>], words: &[&str]) {
    for _ in 0..=random.below(8) {
        let at = random.below(input.len() + 1);
        let end = at + random.below((input.len() - at).min(64) + 1);
        match random.below(9) {
            0 if at < input.len() => input[at] ^= 1 << random.below(8),
            1 if at < input.len() => input[at] = random.next() as u8,
            2 => drop(input.drain(at..end)),
            3 => {
                let part = input[at..end].to_vec();
                let times = 1 << random.below(11);
                input.splice(at..at, part.repeat(times));
            }
            4 => {
                let other = &others[random.below(others.len())];
                let from = random.below(other.len() + 1);
                let to = from + random.below(other.len() - from + 1);
                input.splice(at..end, other[from..to].iter().copied());
            }
            5 => input.truncate(at),
            6 => drop(input.splice(at..at, random.one_of(&WORDS).bytes())),
            _ if words.is_empty() => drop(input.splice(at..end, random.one_of(&WORDS).bytes())),
            _ => {
                let at = if random.below(4) == 0 { end } else { at };
                input.splice(at..end, random.one_of(words).bytes());
            }
        }
        input.truncate(LONGEST);
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| {
        let number = text.parse();
        number.unwrap_or_else(|_| panic!("{name} is {text}, and should be a whole number"))
    })
}

/// The input that is tried now, and since when.
type Running = Arc<Mutex<Option<(Instant, Vec<u8>)>>>;

/// The kept inputs of a format: a folder of `tests/fuzz/corpus`. An input that has found a fault
/// becomes a file there.
///
/// # Panics
///
/// When there is none.
pub fn corpus(format: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(format);
    let mut files: Vec<_> = fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.expect("an entry").path())
        .collect();
    // The same order each time, as a seed leads through it.
    files.sort();
    assert!(!files.is_empty(), "{} is empty", folder.display());
    files
        .iter()
        .map(|file| fs::read(file).expect("it can be read"))
        .collect()
}

/// Fuzzes a target, by its name.
///
/// * `seeds`: inputs of the format, good and bad; one at least. Each is tried as it is, first.
/// * `words`: of the format.
///
/// # Panics
///
/// When the target does, or an input takes too long; the input is in the message, and in a file if
/// it is long.
pub fn fuzz(name: &str, seeds: &[Vec<u8>], words: &[&str], target: impl Fn(&[u8])) {
    let most = Duration::from_secs(number("PFSESSION_FUZZ_SECONDS").unwrap_or(3));
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let seed = number("PFSESSION_FUZZ_SEED").unwrap_or_else(|| now().as_nanos() as u64);
    // A stack that overflows ends the process with no other word.
    println!("fuzzing {name}: PFSESSION_FUZZ_SEED={seed}");
    let mut random = Random(seed);
    let running: Running = Arc::default();
    let ended = Arc::new(AtomicBool::new(false));
    let (watched, stop, of) = (Arc::clone(&running), Arc::clone(&ended), name.to_owned());
    std::thread::spawn(move || {
        while !stop.load(Ordering::Relaxed) {
            std::thread::park_timeout(Duration::from_secs(1));
            let running = watched.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            if let Some((since, input)) = &*running
                && since.elapsed() > HANGS
            {
                eprintln!("fuzzing {of}: this input does not end: {}", shown(&of, input));
                std::process::abort();
            }
        }
    });
    let (begun, mut inputs, mut slowest) = (Instant::now(), 0u64, Duration::ZERO);
    let mut first = seeds.iter();
    while inputs < seeds.len() as u64 || begun.elapsed() < most {
        let input = first.next().cloned().unwrap_or_else(|| {
            let mut input = seeds[random.below(seeds.len())].clone();
            change(&mut input, &mut random, seeds, words);
            input
        });
        let since = Instant::now();
        *running.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some((since, input.clone()));
        let done = catch_unwind(AssertUnwindSafe(|| target(&input)));
        *running.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = None;
        let took = since.elapsed();
        inputs += 1;
        slowest = slowest.max(took);
        let what = match done {
            Err(_) => "panics",
            Ok(()) if took > SLOW => "is slow",
            Ok(()) => continue,
        };
        ended.store(true, Ordering::Relaxed);
        panic!(
            "{name} {what} ({took:?}) on input {inputs} of PFSESSION_FUZZ_SEED={seed}: {}",
            shown(name, &input)
        );
    }
    ended.store(true, Ordering::Relaxed);
    println!(
        "fuzzed {name}: {inputs} inputs in {:?}, the slowest {slowest:?}",
        begun.elapsed()
    );
}

/// An input as a message shows it.
fn shown(name: &str, input: &[u8]) -> String {
    if input.len() <= 2_000 {
        return format!("b\"{}\"", input.escape_ascii());
    }
    let file = std::env::temp_dir().join(format!("fuzz-{name}-{}", std::process::id()));
    match std::fs::write(&file, input) {
        Ok(()) => format!("{} bytes, in {}", input.len(), file.display()),
        Err(error) => format!("{} bytes, which cannot be written to a file: {error}", input.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The message of a target that fails.
    fn said(target: impl Fn(&[u8])) -> Option<String> {
        let seeds = [b"name = value".to_vec(), b"[list]".to_vec()];
        let run = AssertUnwindSafe(|| fuzz("a target", &seeds, &["="], target));
        let panic = catch_unwind(run).err()?;
        panic.downcast_ref::<String>().cloned()
    }

    #[test]
    fn a_target_that_panics_on_a_character_is_found_with_the_input() {
        let broken = |input: &[u8]| {
            let text = String::from_utf8_lossy(input);
            // A slice that some input cuts in the middle of a character.
            let at = text.find('=').map_or(0, |at| at + 1);
            let _ = &text[at..(at + 1).min(text.len())];
        };
        let said = said(broken).expect("it is found");
        assert!(
            said.contains("panics") && said.contains("PFSESSION_FUZZ_SEED="),
            "{said}"
        );
    }

    #[test]
    fn a_target_that_is_right_is_tried_on_all_its_seeds_and_more() {
        let tried = Mutex::new(Vec::new());
        assert_eq!(said(|input| tried.lock().unwrap().push(input.to_vec())), None);
        let tried = tried.into_inner().unwrap();
        assert_eq!(tried[..2], [b"name = value".to_vec(), b"[list]".to_vec()]);
        assert!(tried.len() > 100, "{}", tried.len());
    }
}
