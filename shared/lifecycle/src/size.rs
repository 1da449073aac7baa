//! VM sizes: what each one is on any platform, and which are too small for flows.
//!
//! A name is Azure's (`Standard_D4s_v3`, in any case, with or without `Standard_`), as existing `run.yml` files have it, or EC2's
//! (`m6i.xlarge`), or [`WHOLE_MACHINE`].

use crate::{Millis, deadlines};

/// The size of a session that may use all of the machine that it is on: the default on one machine.
pub const WHOLE_MACHINE: &str = "local";

/// What a VM size is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// How much a session of this size may use; `None` is all that the machine has.
    pub limits: Option<Limits>,
    /// Whether it is of a series that is advised against: burstable, or below series D.
    ///
    /// # Source
    ///
    /// "Opt for VM series D and above" (seed, *Start with advanced settings*).
    pub below_series_d: bool,
}

/// A share of a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Whole processors.
    pub cpus: u32,
    /// Bytes.
    pub memory: u64,
}

/// How long a request to launch a session of this size may be acted on, in milliseconds.
pub fn launch_window(name: &str) -> Millis {
    if name == WHOLE_MACHINE {
        deadlines::LAUNCH_WINDOW
    } else {
        deadlines::LAUNCH_WINDOW_WITH_PULL
    }
}

/// What the size of this name is; `None` if there is none.
///
/// # Source
///
/// The vendors' tables of sizes: [general purpose](https://learn.microsoft.com/azure/virtual-machines/sizes/general-purpose/d-family),
/// [EC2 instance types](https://docs.aws.amazon.com/ec2/latest/instancetypes/).
pub fn size(name: &str) -> Option<Size> {
    if name == WHOLE_MACHINE {
        return Some(Size {
            limits: None,
            below_series_d: false,
        });
    }
    let name = name.to_ascii_lowercase();
    let (series, cpus, quarters) = match name.split_once('.') {
        Some((family, size)) => ec2(family, size)?,
        None => azure(name.strip_prefix("standard_").unwrap_or(&name))?,
    };
    Some(Size {
        limits: Some(Limits {
            cpus,
            memory: u64::from(quarters) << 28,
        }),
        below_series_d: matches!(series, 'a' | 'b' | 't'),
    })
}

/// The series, the processors, and the memory in quarters of a GiB.
type Parts = (char, u32, u32);

/// `d4s_v3`: a series, a number, letters of what it has besides, a version.
fn azure(name: &str) -> Option<Parts> {
    let (model, version) = match name.split_once("_v") {
        Some((model, version)) => (model, version.parse::<u32>().ok()?),
        None => (name, 1),
    };
    let at = model.find(|c: char| c.is_ascii_digit())?;
    let (series, rest) = model.split_at(at);
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let (number, has) = rest.split_at(digits);
    let number: u32 = number.parse().ok()?;
    if !has.chars().all(|c| "abdlmpst".contains(c)) {
        return None;
    }
    let small = [1, 2, 4, 8, 16, 20, 32, 48, 64, 96].contains(&number);
    match (series, number, version) {
        ("b", 1, 1) => Some(('b', 1, if has.contains('m') { 8 } else { 4 })),
        ("b", 2 | 4 | 8 | 12 | 16 | 20, 1) => {
            Some(('b', number, if number == 2 && has == "s" { 16 } else { number * 16 }))
        }
        ("a", 1 | 2 | 4 | 8, 2) => Some(('a', number, if has.contains('m') { number * 32 } else { number * 8 })),
        // The second generation counts steps, not processors; from 11 on it has twice the memory.
        ("d" | "ds", 1..=5, 1 | 2) => Some(('d', 1 << (number - 1), 14 << (number - 1))),
        ("d" | "ds", 11..=15, 1 | 2) if number != 15 => Some(('d', 2 << (number - 11), 56 << (number - 11))),
        ("d", 2.., 3..=6) if small => {
            let each = if has.contains('l') { 8 } else { 16 };
            Some(('d', number, number * each))
        }
        ("e", 2.., 3..=6) if small => Some(('e', number, number * 32)),
        ("f", 2 | 4 | 8 | 16 | 32 | 48 | 64 | 72, 2) => Some(('f', number, number * 8)),
        _ => None,
    }
}

/// `m6i.xlarge`: a family, and a step from `large` on.
fn ec2(family: &str, size: &str) -> Option<Parts> {
    let series = family.chars().next()?;
    let generation: String = family.chars().skip(1).take_while(char::is_ascii_digit).collect();
    generation
        .parse::<u32>()
        .ok()
        .filter(|generation| (2..=8).contains(generation))?;
    let cpus = match size {
        "large" => 2,
        "xlarge" => 4,
        many => {
            many.strip_suffix("xlarge")?
                .parse::<u32>()
                .ok()
                .filter(|n| (2..=48).contains(n))?
                * 4
        }
    };
    let each = match series {
        't' | 'm' => 16,
        'c' => 8,
        'r' => 32,
        _ => return None,
    };
    Some((series, cpus, cpus * each))
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
    fn what_is_no_size_is_none() {
        for name in [
            "",
            "big",
            "Standard_",
            "Standard_D",
            "Standard_D3s_v3",
            "Standard_D2s_v9",
            "Standard_DS0_v2",
            "Standard_DS15_v2",
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
