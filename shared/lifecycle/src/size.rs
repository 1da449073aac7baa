//! VM sizes: what each one is on any platform, what it costs, and which are too small for flows.
//!
//! A name is Azure's (`Standard_D4s_v3`, in any case, with or without `Standard_`), as existing
//! `run.yml` files have it, or EC2's (`m6i.xlarge`), or [`WHOLE_MACHINE`].

mod catalogue;
mod choice;

pub use choice::{Choice, Offer, Used, choose, dollars};

use crate::{Code, Failure, Millis, deadlines};
use catalogue::{AZURE, AZURE_SINGLES, EC2, EC2_SINGLES, Series, Single};

/// The size of a session that may use all of the machine that it is on: the default on one machine.
pub const WHOLE_MACHINE: &str = "local";

/// A VM size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Size {
    /// As its vendor writes it.
    pub name: String,
    /// The sizes of one kind of machine: `Dsv5`, `m6i`.
    pub series: &'static str,
    /// The family that a quota of vCPUs counts: the letters that the series begins with, `D` or
    /// `NC`, `m` or `g`.
    pub family: &'static str,
    /// The limits of a session of this size; `None` is all that the machine has.
    pub limits: Option<Limits>,
    /// The local disk, in GiB; 0 if it has none of its own.
    pub disk_gib: u32,
    pub gpu: Option<Gpu>,
    /// The list price of an hour, in millionths of a US dollar; `None` where none is known.
    pub price: Option<u32>,
    /// Whether it is of a series that is advised against: burstable, or below series D.
    ///
    /// # Source
    ///
    /// "Opt for VM series D and above" (the specification, *Start with advanced settings*).
    pub below_series_d: bool,
}

/// The GPUs of a size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gpu {
    pub count: u32,
    pub model: &'static str,
}

/// A share of a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Whole processors.
    pub cpus: u32,
    /// Bytes.
    pub memory: u64,
}

impl Size {
    fn whole_machine() -> Self {
        Self {
            name: WHOLE_MACHINE.to_owned(),
            series: WHOLE_MACHINE,
            family: WHOLE_MACHINE,
            limits: None,
            disk_gib: 0,
            gpu: None,
            price: None,
            below_series_d: false,
        }
    }

    fn of_series(series: &'static Series, name: String, cpus: u32) -> Self {
        Self {
            name,
            limits: Some(limits(cpus, cpus * series.memory)),
            disk_gib: cpus * series.disk / 2,
            price: (series.price > 0).then_some(series.price * cpus),
            ..Self::in_series(series.name)
        }
    }

    fn of_single(single: &'static Single, name: String) -> Self {
        Self {
            name,
            limits: Some(limits(single.cpus, single.memory)),
            disk_gib: single.disk,
            gpu: single.gpu.map(|(count, model)| Gpu { count, model }),
            price: (single.price > 0).then_some(single.price),
            ..Self::in_series(single.series)
        }
    }

    fn in_series(series: &'static str) -> Self {
        let letters = if series.starts_with('N') { 2 } else { 1 };
        let family = series.get(..letters).unwrap_or(series);
        Self {
            series,
            family,
            below_series_d: matches!(family, "A" | "B" | "t"),
            ..Self::whole_machine()
        }
    }
}

fn limits(cpus: u32, quarters: u32) -> Limits {
    Limits {
        cpus,
        memory: u64::from(quarters) << 28,
    }
}

/// The longest time in which a request to launch a session of this size may be acted on, in
/// milliseconds.
pub fn launch_window(name: &str) -> Millis {
    if name == WHOLE_MACHINE {
        deadlines::LAUNCH_WINDOW
    } else {
        deadlines::LAUNCH_WINDOW_WITH_PULL
    }
}

/// Returns what the size of this name is; `None` if there is none.
pub fn size(name: &str) -> Option<Size> {
    if name == WHOLE_MACHINE {
        return Some(Size::whole_machine());
    }
    let short = without_prefix(name);
    // Only the few whose name begins so are made.
    let begins = |head: &str| {
        short
            .get(..head.len())
            .is_some_and(|beginning| beginning.eq_ignore_ascii_case(head))
    };
    let of_series = AZURE.iter().chain(EC2).filter(|series| begins(series.head));
    let of_series = of_series.flat_map(sizes_of_series);
    let alone = singles().filter(|(single, _)| begins(single.name)).map(of_single);
    of_series
        .chain(alone)
        .find(|size| without_prefix(&size.name).eq_ignore_ascii_case(short))
}

/// Returns all sizes but the whole machine's, by vendor and series.
pub fn catalogue() -> Vec<Size> {
    let mut all: Vec<Size> = AZURE
        .iter()
        .flat_map(sizes_of_series)
        .chain(singles().filter(|(_, is_azure)| *is_azure).map(of_single))
        .collect();
    sort(&mut all);
    let mut ec2: Vec<Size> = EC2
        .iter()
        .flat_map(sizes_of_series)
        .chain(singles().filter(|(_, is_azure)| !is_azure).map(of_single))
        .collect();
    sort(&mut ec2);
    all.append(&mut ec2);
    all
}

fn sort(sizes: &mut [Size]) {
    sizes.sort_by_key(|size| (size.family, size.series, size.limits.map(|l| (l.cpus, l.memory))));
}

/// Returns the error for a name that is no size. It names the nearest size that there is.
pub fn no_such_size(name: &str) -> Failure {
    let short = without_prefix(name).to_ascii_lowercase();
    let distance = |size: &Size| distance(&short, &without_prefix(&size.name).to_ascii_lowercase());
    let nearest = catalogue().into_iter().min_by_key(distance);
    // Of a name that has nothing in common with any, none is near.
    let near = nearest.filter(|size| distance(size) <= short.len() / 2);
    let near = near.map_or_else(String::new, |size| format!(" The nearest one is {}.", size.name));
    let message = format!(
        "There is no VM size {name}.{near} Name one as Azure does, such as Standard_D4s_v3, or as EC2 does, such as m6i.xlarge; \
         {WHOLE_MACHINE} is all of the machine."
    );
    Failure::new(Code::SessionNoSuchSize, message)
}

fn without_prefix(name: &str) -> &str {
    match name.get(..AZURES.len()) {
        Some(prefix) if prefix.eq_ignore_ascii_case(AZURES) => &name[AZURES.len()..],
        _ => name,
    }
}

/// The prefix of Azure's names.
const AZURES: &str = "Standard_";

fn sizes_of_series(series: &'static Series) -> impl Iterator<Item = Size> {
    series.cpus.iter().map(move |cpus| {
        let name = match (series.tail, cpus) {
            ("", 1) => format!("{}.medium", series.head),
            ("", 2) => format!("{}.large", series.head),
            ("", 4) => format!("{}.xlarge", series.head),
            ("", _) => format!("{}.{}xlarge", series.head, cpus / 4),
            (tail, _) => format!("{AZURES}{}{cpus}{tail}", series.head),
        };
        Size::of_series(series, name, *cpus)
    })
}

/// The sizes that follow no series, each with whether it is Azure's.
fn singles() -> impl Iterator<Item = (&'static Single, bool)> {
    let azure = AZURE_SINGLES.iter().map(|single| (single, true));
    azure.chain(EC2_SINGLES.iter().map(|single| (single, false)))
}

fn of_single((single, is_azure): (&'static Single, bool)) -> Size {
    let prefix = if is_azure { AZURES } else { "" };
    Size::of_single(single, format!("{prefix}{}", single.name))
}

/// The Levenshtein distance of two names.
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (i, a) in one.chars().enumerate() {
        let mut above = std::mem::replace(&mut row[0], i + 1);
        for (j, b) in other.iter().enumerate() {
            let changed = above + usize::from(a != *b);
            above = row[j + 1];
            row[j + 1] = changed.min(above + 1).min(row[j] + 1);
        }
    }
    row[other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn of(name: &str) -> Option<(u32, u64, bool)> {
        let size = size(name)?;
        let limits = size.limits?;
        Some((limits.cpus, limits.memory, size.below_series_d))
    }

    #[test]
    fn a_size_is_what_its_vendor_says_in_whatever_case_it_is_written() {
        for (name, cpus, memory) in [
            ("Standard_D2s_v3", 2, 8 * GIB),
            ("STANDARD_D4AS_V5", 4, 16 * GIB),
            ("d64s_v3", 64, 256 * GIB),
            ("Standard_D2ls_v5", 2, 4 * GIB),
            ("STANDARD_DS11_V2", 2, 14 * GIB),
            ("Standard_DS3_v2", 4, 14 * GIB),
            ("Standard_D1_v2", 1, 7 * GIB / 2),
            ("Standard_DS14_v2", 16, 112 * GIB),
            ("Standard_E4s_v3", 4, 32 * GIB),
            ("Standard_F8s_v2", 8, 16 * GIB),
            ("m5.large", 2, 8 * GIB),
            ("m6i.4xlarge", 16, 64 * GIB),
            ("c7g.xlarge", 4, 8 * GIB),
            ("r6i.2xlarge", 8, 64 * GIB),
        ] {
            assert_eq!(of(name), Some((cpus, memory, false)), "{name}");
        }
    }

    #[test]
    fn what_is_below_series_d_says_so() {
        for (name, cpus, memory) in [
            ("Standard_A2_v2", 2, 4 * GIB),
            ("Standard_A4m_v2", 4, 32 * GIB),
            ("Standard_B1s", 1, GIB),
            ("t3.medium", 2, 4 * GIB),
            ("Standard_B1ms", 1, 2 * GIB),
            ("Standard_B2s", 2, 4 * GIB),
            ("Standard_B2ms", 2, 8 * GIB),
            ("Standard_B8ms", 8, 32 * GIB),
            ("t3.large", 2, 8 * GIB),
        ] {
            assert_eq!(of(name), Some((cpus, memory, true)), "{name}");
        }
    }

    #[test]
    fn the_whole_machine_has_no_limits() {
        let local = size(WHOLE_MACHINE).unwrap();
        assert_eq!((local.limits, local.below_series_d), (None, false));
    }

    #[test]
    fn each_size_of_the_catalogue_is_found_by_its_name_and_no_name_is_there_twice() {
        let all = catalogue();
        let mut names: Vec<String> = all.iter().map(|size| size.name.to_ascii_lowercase()).collect();
        names.sort_unstable();
        let before = names.len();
        names.dedup();
        assert_eq!(names.len(), before);
        for each in all {
            assert_eq!(size(&each.name), Some(each.clone()), "{}", each.name);
            let short = without_prefix(&each.name).to_ascii_uppercase();
            assert_eq!(size(&short), Some(each), "{short}");
        }
    }

    #[test]
    fn a_size_says_its_series_family_disk_gpus_and_price() {
        let told = |name: &str| {
            let size = size(name).unwrap();
            let gpu = size.gpu.map(|gpu| (gpu.count, gpu.model));
            (size.series, size.family, size.disk_gib, gpu, size.price)
        };
        assert_eq!(told("d4ds_v5"), ("Ddsv5", "D", 150, None, Some(226_000)));
        assert_eq!(told("Standard_D2s_v6"), ("Dsv6", "D", 0, None, None));
        assert_eq!(
            told("nc24ads_a100_v4"),
            ("NCadsA100v4", "NC", 64, Some((1, "A100")), Some(3_673_000))
        );
        assert_eq!(told("m6i.xlarge"), ("m6i", "m", 0, None, Some(192_000)));
        assert_eq!(
            told("p5.48xlarge"),
            ("p5", "p", 28_312, Some((8, "H100")), Some(55_040_000))
        );
        assert_eq!(told(WHOLE_MACHINE), ("local", "local", 0, None, None));
    }

    #[test]
    fn a_name_that_is_no_size_is_answered_with_the_nearest() {
        let said = |name: &str| {
            let text = no_such_size(name).message;
            text.split_once(" Name one as").unwrap().0.to_owned()
        };
        let texts = [
            "Standard_D3s_v3",
            "m6i.3xlarge",
            "d4sv5",
            "NC24ads_A100",
            "big",
            "Local",
            "",
        ]
        .map(said);
        assert_eq!(
            texts,
            [
                "There is no VM size Standard_D3s_v3. The nearest one is Standard_D2s_v3.",
                "There is no VM size m6i.3xlarge. The nearest one is m6i.xlarge.",
                "There is no VM size d4sv5. The nearest one is Standard_D4s_v5.",
                "There is no VM size NC24ads_A100. The nearest one is Standard_NC24ads_A100_v4.",
                "There is no VM size big.",
                "There is no VM size Local.",
                "There is no VM size .",
            ]
        );
    }

    #[test]
    fn what_is_no_size_is_none() {
        for name in [
            "",
            "big",
            "Standard_",
            "Standard_D",
            "Standard_D3s_v3",
            "Standard_D2s_v9",
            "Standard_DS0_v2",
            "Standard_D2x_v3",
            "Standard_F3s_v2",
            "D99999999999s_v3",
            "é4_v3",
            "Local",
            ".",
            "m5.",
            "m5.1xlarge",
            "x5.large",
            "m.large",
            "m5.99999999999xlarge",
            "dé",
        ] {
            assert_eq!(size(name), None, "{name}");
        }
    }
}
