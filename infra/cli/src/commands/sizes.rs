//! `pfsession sizes`: the VM sizes.

use crate::{
    command::Execute,
    global::{Done, Service},
    show::{render, table},
    terminal::note,
    text::{out, out_json},
    trouble::{NONE, Trouble},
};
use clap::Args;
use lifecycle::size::{self, Size};
use schemars::JsonSchema;
use serde::Serialize;

/// List the VM sizes: processors, memory, disk, GPUs, list price
#[derive(Args, Debug)]
#[command(after_help = "\
Sessions are started with these names: in any case, Azure's also without Standard_. The size `local` is all of this machine, and no VM.

Examples:
  pfsession sizes                each series
  pfsession sizes Dsv5           the sizes of a series, of a family (D, NC, m) or of the beginning of a name
  pfsession sizes --gpu
  pfsession sizes --json | jq -r '.sizes[] | select(.memory_gib >= 32) | .name'")]
pub(crate) struct Sizes {
    /// A series, a family, or the beginning of a name; without it, all of them
    #[arg(value_name = "SERIES")]
    pub(crate) what: Option<String>,
    /// Those that have a GPU
    #[arg(long)]
    pub(crate) gpu: bool,
}

impl Execute for Sizes {
    type Json = SizeList;
    const READS: bool = true;

    fn execute(&self, service: &Service<'_>) -> Done {
        let sizes = find(self)?;
        if service.global.json {
            out_json(&SizeList { sizes });
            return Ok(0);
        }
        if self.what.is_none() && !self.gpu {
            out(&of_series(&sizes));
            note!("The sizes of one series, family or name: pfsession sizes Dsv5; sizes NC; sizes D4s");
        } else {
            out(&one_by_one(&sizes));
        }
        note!(
            "Prices are about what the vendors' lists said in 2025, in US dollars, of Linux on demand in East US and us-east-1: look there before you count on one."
        );
        Ok(0)
    }
}

/// The sizes that were asked for.
#[derive(Serialize, JsonSchema)]
pub(crate) struct SizeList {
    sizes: Vec<SizeView>,
}

/// One VM size.
///
/// * `family`: what a quota of processors is about.
/// * `disk_gib`: its local disk; 0 if it has none of its own.
/// * `dollars_an_hour`: about the list price, as of 2025, of Linux on demand in East US or
///   us-east-1; none where it is not known.
/// * `advised_against`: whether it is below series D, or burstable.
#[derive(Serialize, JsonSchema)]
pub(crate) struct SizeView {
    name: String,
    series: &'static str,
    family: &'static str,
    cpus: u32,
    memory_gib: f64,
    disk_gib: u32,
    gpus: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    gpu: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dollars_an_hour: Option<f64>,
    advised_against: bool,
}

impl From<Size> for SizeView {
    fn from(size: Size) -> Self {
        let (cpus, memory) = size.limits.map_or((0, 0), |limits| (limits.cpus, limits.memory));
        Self {
            name: size.name,
            series: size.series,
            family: size.family,
            cpus,
            memory_gib: memory as f64 / f64::from(1 << 30),
            disk_gib: size.disk_gib,
            gpus: size.gpu.map_or(0, |gpu| gpu.count),
            gpu: size.gpu.map(|gpu| gpu.model),
            dollars_an_hour: size.price.map(|price| f64::from(price) / 1e6),
            advised_against: size.below_series_d,
        }
    }
}

/// The sizes whose series or family is the one that was typed, or else those whose names begin so.
fn find(wanted: &Sizes) -> Result<Vec<SizeView>, Box<Trouble>> {
    let all = || {
        size::catalogue()
            .into_iter()
            .filter(|size| !wanted.gpu || size.gpu.is_some())
    };
    let Some(what) = &wanted.what else {
        return Ok(all().map(SizeView::from).collect());
    };
    let begins = |size: &Size| {
        let typed = what.to_ascii_lowercase();
        let name = size.name.to_ascii_lowercase();
        let short = name.strip_prefix("standard_").unwrap_or(&name);
        short.starts_with(typed.strip_prefix("standard_").unwrap_or(&typed))
    };
    let of_family: Vec<Size> = all().filter(|size| size.family == what).collect();
    let of_series: Vec<Size> = all().filter(|size| size.series.eq_ignore_ascii_case(what)).collect();
    let found = [of_family, of_series, all().filter(begins).collect()];
    match found.into_iter().find(|sizes| !sizes.is_empty()) {
        Some(sizes) => Ok(sizes.into_iter().map(SizeView::from).collect()),
        None => {
            let failure = size::no_such_size(what);
            Err(Trouble::of(NONE, failure).next("see all series: pfsession sizes"))
        }
    }
}

/// A series a line.
fn of_series(sizes: &[SizeView]) -> String {
    let mut rows = table(&["SERIES", "FAMILY", "VCPUS", "MEMORY GIB", "GPU", "$ AN HOUR", ""]);
    for series in sizes.chunk_by(|one, other| one.series == other.series) {
        let (first, last) = (&series[0], &series[series.len() - 1]);
        rows.add_row([
            first.series.to_owned(),
            first.family.to_owned(),
            range(first.cpus.to_string(), last.cpus.to_string()),
            range(first.memory_gib.to_string(), last.memory_gib.to_string()),
            first.gpu.unwrap_or_default().to_owned(),
            range(price(first), price(last)),
            note_of(first),
        ]);
    }
    render(rows)
}

fn range(first: String, last: String) -> String {
    if first == last {
        first
    } else {
        format!("{first} to {last}")
    }
}

fn one_by_one(sizes: &[SizeView]) -> String {
    let mut rows = table(&[
        "SIZE",
        "SERIES",
        "VCPUS",
        "MEMORY GIB",
        "DISK GIB",
        "GPU",
        "$ AN HOUR",
        "",
    ]);
    for size in sizes {
        let gpu = size
            .gpu
            .map_or_else(String::new, |model| format!("{} {model}", size.gpus));
        rows.add_row([
            size.name.clone(),
            size.series.to_owned(),
            size.cpus.to_string(),
            size.memory_gib.to_string(),
            size.disk_gib.to_string(),
            gpu,
            price(size),
            note_of(size),
        ]);
    }
    render(rows)
}

fn price(size: &SizeView) -> String {
    size.dollars_an_hour
        .map_or_else(|| "not known".to_owned(), |dollars| format!("{dollars:.3}"))
}

fn note_of(size: &SizeView) -> String {
    let text = if size.advised_against {
        "advised against: below series D"
    } else {
        ""
    };
    text.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(what: &str, gpu: bool) -> Vec<String> {
        let wanted = Sizes {
            what: Some(what.to_owned()),
            gpu,
        };
        let sizes = find(&wanted).map_err(|trouble| trouble.to_string());
        sizes.unwrap().into_iter().map(|size| size.name).collect()
    }

    #[test]
    fn sizes_are_found_by_series_by_family_and_by_the_beginning_of_a_name() {
        assert_eq!(names("dsv4", false).len(), 7);
        assert!(names("D", false).iter().all(|name| name.starts_with("Standard_D")));
        assert!(names("m", false).iter().all(|name| name.starts_with('m')));
        assert_eq!(names("Standard_D4s", false).len(), 4);
        assert_eq!(names("p5", true), ["p5.48xlarge"]);
    }

    #[test]
    fn a_table_of_sizes_says_what_is_advised_against() {
        let wanted = Sizes {
            what: Some("Av2".into()),
            gpu: false,
        };
        let sizes = find(&wanted).map_err(|trouble| trouble.to_string()).unwrap();
        expect_test::expect![[r#"
            SERIES  FAMILY  VCPUS   MEMORY GIB  GPU  $ AN HOUR
            Av2     A       1 to 8  2 to 16          0.043 to 0.399  advised against: below series D

            SIZE            SERIES  VCPUS  MEMORY GIB  DISK GIB  GPU  $ AN HOUR
            Standard_A1_v2  Av2     1      2           10             0.043      advised against: below series D
            Standard_A2_v2  Av2     2      4           20             0.090      advised against: below series D
            Standard_A4_v2  Av2     4      8           40             0.191      advised against: below series D
            Standard_A8_v2  Av2     8      16          80             0.399      advised against: below series D"#]]
        .assert_eq(&format!("{}\n\n{}", of_series(&sizes), one_by_one(&sizes)));
        let none = Sizes {
            what: Some("Standard_D3s_v3".into()),
            gpu: false,
        };
        let text = find(&none).err().unwrap().to_string();
        expect_test::expect![[r#"
            error: There is no VM size Standard_D3s_v3. The nearest one is Standard_D2s_v3. Name one as Azure does, such as Standard_D4s_v3, or as EC2 does, such as m6i.xlarge; local is all of the machine. [Session.NoSuchSize]
              next: see all series: pfsession sizes"#]].assert_eq(&text);
    }
}
