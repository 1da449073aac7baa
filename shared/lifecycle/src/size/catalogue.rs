//! The catalogue of VM sizes, as data: series of sizes that differ in their processors alone, and
//! sizes of their own.
//!
//! # Source
//!
//! The vendors' tables: [Azure VM
//! sizes](https://learn.microsoft.com/azure/virtual-machines/sizes/overview), [EC2 instance
//! types](https://docs.aws.amazon.com/ec2/latest/instancetypes/). Prices are about the list prices
//! of Linux on demand, in East US and in us-east-1, in 2025. They were written down without the
//! vendors' lists at hand, and a few were compared with a public table. They compare sizes, and are
//! nothing to count a bill with.

/// A series of sizes. Each number is that of one processor, unless it says otherwise.
pub(super) struct Series {
    pub(super) name: &'static str,
    /// Azure: before and after the number of processors, without `Standard_`. EC2: the family, and
    /// nothing.
    pub(super) head: &'static str,
    pub(super) tail: &'static str,
    pub(super) cpus: &'static [u32],
    /// Memory, in quarters of a GiB.
    pub(super) memory: u32,
    /// Local disk of two processors, in GiB.
    pub(super) disk: u32,
    /// Millionths of a US dollar an hour; 0 where no list price is known.
    pub(super) price: u32,
}

/// A size whose numbers follow no series.
pub(super) struct Single {
    pub(super) series: &'static str,
    pub(super) name: &'static str,
    pub(super) cpus: u32,
    /// Quarters of a GiB.
    pub(super) memory: u32,
    /// GiB.
    pub(super) disk: u32,
    /// The number of GPUs, and their model.
    pub(super) gpu: Option<(u32, &'static str)>,
    /// Millionths of a US dollar an hour; 0 where no list price is known.
    pub(super) price: u32,
}

const TO_32: &[u32] = &[2, 4, 8, 16, 32];
const TO_64: &[u32] = &[2, 4, 8, 16, 32, 48, 64];
const TO_96: &[u32] = &[2, 4, 8, 16, 32, 48, 64, 96];
/// Of series E the largest ones have less memory, and are sizes of their own.
const E_TO_48: &[u32] = &[2, 4, 8, 16, 20, 32, 48];
const E_TO_64: &[u32] = &[2, 4, 8, 16, 20, 32, 48, 64];

const fn azure(
    name: &'static str,
    head: &'static str,
    tail: &'static str,
    cpus: &'static [u32],
    (memory, disk, price): (u32, u32, u32),
) -> Series {
    Series {
        name,
        head,
        tail,
        cpus,
        memory,
        disk,
        price,
    }
}

pub(super) const AZURE: &[Series] = &[
    azure("Dv3", "D", "_v3", TO_64, (16, 50, 48_000)),
    azure("Dsv3", "D", "s_v3", TO_64, (16, 16, 48_000)),
    azure("Dv4", "D", "_v4", TO_64, (16, 0, 48_000)),
    azure("Dsv4", "D", "s_v4", TO_64, (16, 0, 48_000)),
    azure("Ddv4", "D", "d_v4", TO_64, (16, 75, 56_500)),
    azure("Ddsv4", "D", "ds_v4", TO_64, (16, 75, 56_500)),
    azure("Dav4", "D", "a_v4", TO_96, (16, 50, 48_000)),
    azure("Dasv4", "D", "as_v4", TO_96, (16, 16, 48_000)),
    azure("Dv5", "D", "_v5", TO_96, (16, 0, 48_000)),
    azure("Dsv5", "D", "s_v5", TO_96, (16, 0, 48_000)),
    azure("Ddv5", "D", "d_v5", TO_96, (16, 75, 56_500)),
    azure("Ddsv5", "D", "ds_v5", TO_96, (16, 75, 56_500)),
    azure("Dasv5", "D", "as_v5", TO_96, (16, 0, 43_000)),
    azure("Dadsv5", "D", "ads_v5", TO_96, (16, 75, 51_500)),
    azure("Dlsv5", "D", "ls_v5", TO_96, (8, 0, 42_500)),
    azure("Dldsv5", "D", "lds_v5", TO_96, (8, 75, 0)),
    azure("Dpsv5", "D", "ps_v5", TO_64, (16, 0, 38_500)),
    azure("Dpdsv5", "D", "pds_v5", TO_64, (16, 75, 45_200)),
    azure("Dplsv5", "D", "pls_v5", TO_64, (8, 0, 34_000)),
    azure("Dpldsv5", "D", "plds_v5", TO_64, (8, 75, 0)),
    azure("Dsv6", "D", "s_v6", TO_96, (16, 0, 0)),
    azure("Ddsv6", "D", "ds_v6", TO_96, (16, 110, 0)),
    azure("Dlsv6", "D", "ls_v6", TO_96, (8, 0, 0)),
    azure("Dldsv6", "D", "lds_v6", TO_96, (8, 110, 0)),
    azure("Dasv6", "D", "as_v6", TO_96, (16, 0, 0)),
    azure("Dadsv6", "D", "ads_v6", TO_96, (16, 110, 0)),
    azure("Dalsv6", "D", "als_v6", TO_96, (8, 0, 0)),
    azure("Daldsv6", "D", "alds_v6", TO_96, (8, 110, 0)),
    azure("Dpsv6", "D", "ps_v6", TO_96, (16, 0, 0)),
    azure("Dplsv6", "D", "pls_v6", TO_96, (8, 0, 0)),
    azure("Ev3", "E", "_v3", E_TO_48, (32, 50, 63_000)),
    azure("Esv3", "E", "s_v3", E_TO_48, (32, 32, 63_000)),
    azure("Ev4", "E", "_v4", E_TO_48, (32, 0, 63_000)),
    azure("Esv4", "E", "s_v4", E_TO_48, (32, 0, 63_000)),
    azure("Edv4", "E", "d_v4", E_TO_48, (32, 75, 72_000)),
    azure("Edsv4", "E", "ds_v4", E_TO_48, (32, 75, 72_000)),
    azure("Eav4", "E", "a_v4", E_TO_64, (32, 50, 63_000)),
    azure("Easv4", "E", "as_v4", E_TO_64, (32, 32, 63_000)),
    azure("Ev5", "E", "_v5", E_TO_64, (32, 0, 63_000)),
    azure("Esv5", "E", "s_v5", E_TO_64, (32, 0, 63_000)),
    azure("Edv5", "E", "d_v5", E_TO_64, (32, 75, 72_000)),
    azure("Edsv5", "E", "ds_v5", E_TO_64, (32, 75, 72_000)),
    azure("Easv5", "E", "as_v5", E_TO_64, (32, 0, 56_500)),
    azure("Eadsv5", "E", "ads_v5", E_TO_64, (32, 75, 65_500)),
    azure("Esv6", "E", "s_v6", E_TO_64, (32, 0, 0)),
    azure("Edsv6", "E", "ds_v6", E_TO_64, (32, 110, 0)),
    azure("Easv6", "E", "as_v6", E_TO_64, (32, 0, 0)),
    azure("Eadsv6", "E", "ads_v6", E_TO_64, (32, 110, 0)),
    azure("Fsv2", "F", "s_v2", &[2, 4, 8, 16, 32, 48, 64, 72], (8, 16, 42_300)),
    azure("Lsv2", "L", "s_v2", &[8, 16, 32, 48, 64, 80], (32, 447, 78_000)),
    azure("Lsv3", "L", "s_v3", &[8, 16, 32, 48, 64, 80], (32, 447, 78_000)),
    azure("Lasv3", "L", "as_v3", &[8, 16, 32, 48, 64, 80], (32, 447, 78_000)),
    azure("Bms", "B", "ms", &[2, 4, 8, 12, 16, 20], (16, 16, 41_600)),
    azure("Bsv2", "B", "s_v2", TO_32, (16, 0, 41_600)),
];

const fn single(
    series: &'static str,
    name: &'static str,
    (cpus, memory, disk): (u32, u32, u32),
    gpu: Option<(u32, &'static str)>,
    price: u32,
) -> Single {
    Single {
        series,
        name,
        cpus,
        memory,
        disk,
        gpu,
        price,
    }
}

pub(super) const AZURE_SINGLES: &[Single] = &[
    single("Av2", "A1_v2", (1, 8, 10), None, 43_000),
    single("Av2", "A2_v2", (2, 16, 20), None, 90_300),
    single("Av2", "A4_v2", (4, 32, 40), None, 191_000),
    single("Av2", "A8_v2", (8, 64, 80), None, 399_000),
    single("Amv2", "A2m_v2", (2, 64, 20), None, 119_000),
    single("Amv2", "A4m_v2", (4, 128, 40), None, 237_000),
    single("Amv2", "A8m_v2", (8, 256, 80), None, 475_000),
    single("Bs", "B1ls", (1, 2, 4), None, 5_200),
    single("Bs", "B1s", (1, 4, 4), None, 10_400),
    single("Bs", "B1ms", (1, 8, 4), None, 20_700),
    single("Bs", "B2s", (2, 16, 8), None, 41_600),
    // The second generation counts steps, not processors; from 11 on it has twice the memory.
    single("D", "D1", (1, 14, 50), None, 77_000),
    single("D", "D2", (2, 28, 100), None, 154_000),
    single("D", "D3", (4, 56, 200), None, 308_000),
    single("D", "D4", (8, 112, 400), None, 616_000),
    single("D", "D11", (2, 56, 100), None, 193_000),
    single("D", "D12", (4, 112, 200), None, 386_000),
    single("D", "D13", (8, 224, 400), None, 771_000),
    single("D", "D14", (16, 448, 800), None, 1_542_000),
    single("DS", "DS1", (1, 14, 7), None, 77_000),
    single("DS", "DS2", (2, 28, 14), None, 154_000),
    single("DS", "DS3", (4, 56, 28), None, 308_000),
    single("DS", "DS4", (8, 112, 56), None, 616_000),
    single("DS", "DS11", (2, 56, 28), None, 193_000),
    single("DS", "DS12", (4, 112, 56), None, 386_000),
    single("DS", "DS13", (8, 224, 112), None, 771_000),
    single("DS", "DS14", (16, 448, 224), None, 1_542_000),
    single("Dv2", "D1_v2", (1, 14, 50), None, 73_000),
    single("Dv2", "D2_v2", (2, 28, 100), None, 146_000),
    single("Dv2", "D3_v2", (4, 56, 200), None, 293_000),
    single("Dv2", "D4_v2", (8, 112, 400), None, 585_000),
    single("Dv2", "D5_v2", (16, 224, 800), None, 1_170_000),
    single("Dv2", "D11_v2", (2, 56, 100), None, 185_000),
    single("Dv2", "D12_v2", (4, 112, 200), None, 371_000),
    single("Dv2", "D13_v2", (8, 224, 400), None, 741_000),
    single("Dv2", "D14_v2", (16, 448, 800), None, 1_482_000),
    single("Dv2", "D15_v2", (20, 560, 1000), None, 1_853_000),
    single("DSv2", "DS1_v2", (1, 14, 7), None, 73_000),
    single("DSv2", "DS2_v2", (2, 28, 14), None, 146_000),
    single("DSv2", "DS3_v2", (4, 56, 28), None, 293_000),
    single("DSv2", "DS4_v2", (8, 112, 56), None, 585_000),
    single("DSv2", "DS5_v2", (16, 224, 112), None, 1_170_000),
    single("DSv2", "DS11_v2", (2, 56, 28), None, 185_000),
    single("DSv2", "DS12_v2", (4, 112, 56), None, 371_000),
    single("DSv2", "DS13_v2", (8, 224, 112), None, 741_000),
    single("DSv2", "DS14_v2", (16, 448, 224), None, 1_482_000),
    single("DSv2", "DS15_v2", (20, 560, 280), None, 1_853_000),
    single("Ev3", "E64_v3", (64, 1728, 1600), None, 4_032_000),
    single("Esv3", "E64s_v3", (64, 1728, 864), None, 4_032_000),
    single("Ev4", "E64_v4", (64, 2016, 0), None, 4_032_000),
    single("Esv4", "E64s_v4", (64, 2016, 0), None, 4_032_000),
    single("Edv4", "E64d_v4", (64, 2016, 2400), None, 4_608_000),
    single("Edsv4", "E64ds_v4", (64, 2016, 2400), None, 4_608_000),
    single("Eav4", "E96a_v4", (96, 2688, 2400), None, 6_048_000),
    single("Easv4", "E96as_v4", (96, 2688, 1344), None, 6_048_000),
    single("Ev5", "E96_v5", (96, 2688, 0), None, 6_048_000),
    single("Esv5", "E96s_v5", (96, 2688, 0), None, 6_048_000),
    single("Edv5", "E96d_v5", (96, 2688, 3600), None, 6_912_000),
    single("Edsv5", "E96ds_v5", (96, 2688, 3600), None, 6_912_000),
    single("Easv5", "E96as_v5", (96, 2688, 0), None, 5_424_000),
    single("Eadsv5", "E96ads_v5", (96, 2688, 3600), None, 6_288_000),
    single("M", "M32ts", (32, 768, 1024), None, 2_707_000),
    single("M", "M32ls", (32, 1024, 1024), None, 2_875_000),
    single("M", "M64ls", (64, 2048, 2048), None, 5_415_000),
    single("M", "M64s", (64, 4096, 2048), None, 6_669_000),
    single("M", "M64ms", (64, 7168, 2048), None, 10_337_000),
    single("M", "M128s", (128, 8192, 4096), None, 13_338_000),
    single("M", "M128ms", (128, 15_568, 4096), None, 26_688_000),
    single("NCv3", "NC6s_v3", (6, 448, 736), Some((1, "V100")), 3_060_000),
    single("NCv3", "NC12s_v3", (12, 896, 1474), Some((2, "V100")), 6_120_000),
    single("NCv3", "NC24s_v3", (24, 1792, 2948), Some((4, "V100")), 12_240_000),
    single("NCv3", "NC24rs_v3", (24, 1792, 2948), Some((4, "V100")), 13_464_000),
    single("NCasT4v3", "NC4as_T4_v3", (4, 112, 180), Some((1, "T4")), 526_000),
    single("NCasT4v3", "NC8as_T4_v3", (8, 224, 360), Some((1, "T4")), 752_000),
    single("NCasT4v3", "NC16as_T4_v3", (16, 440, 360), Some((1, "T4")), 1_204_000),
    single("NCasT4v3", "NC64as_T4_v3", (64, 1760, 2880), Some((4, "T4")), 4_352_000),
    single(
        "NCadsA100v4",
        "NC24ads_A100_v4",
        (24, 880, 64),
        Some((1, "A100")),
        3_673_000,
    ),
    single(
        "NCadsA100v4",
        "NC48ads_A100_v4",
        (48, 1760, 128),
        Some((2, "A100")),
        7_346_000,
    ),
    single(
        "NCadsA100v4",
        "NC96ads_A100_v4",
        (96, 3520, 256),
        Some((4, "A100")),
        14_692_000,
    ),
    single(
        "NCadsH100v5",
        "NC40ads_H100_v5",
        (40, 1280, 128),
        Some((1, "H100")),
        6_980_000,
    ),
    single(
        "NCadsH100v5",
        "NC80adis_H100_v5",
        (80, 2560, 256),
        Some((2, "H100")),
        13_960_000,
    ),
    single("NDrsv2", "ND40rs_v2", (40, 2688, 2948), Some((8, "V100")), 22_032_000),
    single("NDasrv4", "ND96asr_v4", (96, 3600, 6000), Some((8, "A100")), 27_197_000),
    single(
        "NDamsrA100v4",
        "ND96amsr_A100_v4",
        (96, 7600, 6400),
        Some((8, "A100")),
        32_770_000,
    ),
    single(
        "NDisrH100v5",
        "ND96isr_H100_v5",
        (96, 7600, 1000),
        Some((8, "H100")),
        98_320_000,
    ),
    single(
        "NVadsA10v5",
        "NV6ads_A10_v5",
        (6, 220, 180),
        Some((1, "A10 (a sixth)")),
        454_000,
    ),
    single(
        "NVadsA10v5",
        "NV12ads_A10_v5",
        (12, 440, 360),
        Some((1, "A10 (a third)")),
        908_000,
    ),
    single(
        "NVadsA10v5",
        "NV18ads_A10_v5",
        (18, 880, 720),
        Some((1, "A10 (a half)")),
        1_600_000,
    ),
    single(
        "NVadsA10v5",
        "NV36ads_A10_v5",
        (36, 1760, 1440),
        Some((1, "A10")),
        3_200_000,
    ),
    single(
        "NVadsA10v5",
        "NV36adms_A10_v5",
        (36, 3520, 2880),
        Some((1, "A10")),
        4_520_000,
    ),
    single(
        "NVadsA10v5",
        "NV72ads_A10_v5",
        (72, 3520, 2880),
        Some((2, "A10")),
        6_520_000,
    ),
];

/// `large`, `xlarge`, and so many times as much.
const X_16: &[u32] = &[2, 4, 8, 16, 32, 48, 64];
const X_24: &[u32] = &[2, 4, 8, 16, 32, 48, 64, 96];
const X_32: &[u32] = &[2, 4, 8, 16, 32, 48, 64, 96, 128];
const X_48: &[u32] = &[2, 4, 8, 16, 32, 48, 64, 96, 128, 192];
const X_7I: &[u32] = &[2, 4, 8, 16, 32, 48, 64, 96, 192];
const G_16: &[u32] = &[1, 2, 4, 8, 16, 32, 48, 64];
const G_48: &[u32] = &[1, 2, 4, 8, 16, 32, 48, 64, 96, 192];

const fn ec2(family: &'static str, cpus: &'static [u32], (memory, disk, price): (u32, u32, u32)) -> Series {
    Series {
        name: family,
        head: family,
        tail: "",
        cpus,
        memory,
        disk,
        price,
    }
}

pub(super) const EC2: &[Series] = &[
    ec2("c5", &[2, 4, 8, 16, 36, 48, 72, 96], (8, 0, 42_500)),
    ec2("c5a", X_24, (8, 0, 38_500)),
    ec2("c5d", &[2, 4, 8, 16, 36, 48, 72, 96], (8, 46, 48_000)),
    ec2("c6a", X_48, (8, 0, 38_250)),
    ec2("c6g", G_16, (8, 0, 34_000)),
    ec2("c6gd", G_16, (8, 110, 38_400)),
    ec2("c6i", X_32, (8, 0, 42_500)),
    ec2("c6id", X_32, (8, 110, 50_400)),
    ec2("c7a", &[1, 2, 4, 8, 16, 32, 48, 64, 96, 128, 192], (8, 0, 51_320)),
    ec2("c7g", G_16, (8, 0, 36_250)),
    ec2("c7i", X_7I, (8, 0, 44_625)),
    ec2("c8g", G_48, (8, 0, 39_880)),
    ec2("m4", &[2, 4, 8, 16, 40, 64], (16, 0, 50_000)),
    ec2("m5", X_24, (16, 0, 48_000)),
    ec2("m5a", X_24, (16, 0, 43_000)),
    ec2("m5d", X_24, (16, 70, 56_500)),
    ec2("m5n", X_24, (16, 0, 59_500)),
    ec2("m6a", X_48, (16, 0, 43_200)),
    ec2("m6g", G_16, (16, 0, 38_500)),
    ec2("m6gd", G_16, (16, 110, 45_200)),
    ec2("m6i", X_32, (16, 0, 48_000)),
    ec2("m6id", X_32, (16, 110, 59_325)),
    ec2("m7a", &[1, 2, 4, 8, 16, 32, 48, 64, 96, 128, 192], (16, 0, 57_960)),
    ec2("m7g", G_16, (16, 0, 40_800)),
    ec2("m7i", X_7I, (16, 0, 50_400)),
    ec2("m7i-flex", TO_32, (16, 0, 47_880)),
    ec2("m8g", G_48, (16, 0, 44_880)),
    ec2("r5", X_24, (32, 0, 63_000)),
    ec2("r5a", X_24, (32, 0, 56_500)),
    ec2("r5d", X_24, (32, 70, 72_000)),
    ec2("r6a", X_48, (32, 0, 56_700)),
    ec2("r6g", G_16, (32, 0, 50_400)),
    ec2("r6i", X_32, (32, 0, 63_000)),
    ec2("r6id", X_32, (32, 110, 75_600)),
    ec2("r7a", &[1, 2, 4, 8, 16, 32, 48, 64, 96, 128, 192], (32, 0, 76_080)),
    ec2("r7g", G_16, (32, 0, 53_550)),
    ec2("r7i", X_7I, (32, 0, 66_150)),
    ec2("r8g", G_48, (32, 0, 58_910)),
    ec2("i4i", X_16, (32, 436, 85_800)),
    ec2("t3", &[4, 8], (16, 0, 41_600)),
    ec2("t3a", &[4, 8], (16, 0, 37_600)),
    ec2("t4g", &[4, 8], (16, 0, 33_600)),
    ec2("t2", &[4, 8], (16, 0, 46_400)),
];

pub(super) const EC2_SINGLES: &[Single] = &[
    single("t2", "t2.nano", (1, 2, 0), None, 5_800),
    single("t2", "t2.micro", (1, 4, 0), None, 11_600),
    single("t2", "t2.small", (1, 8, 0), None, 23_000),
    single("t2", "t2.medium", (2, 16, 0), None, 46_400),
    single("t2", "t2.large", (2, 32, 0), None, 92_800),
    single("t3", "t3.nano", (2, 2, 0), None, 5_200),
    single("t3", "t3.micro", (2, 4, 0), None, 10_400),
    single("t3", "t3.small", (2, 8, 0), None, 20_800),
    single("t3", "t3.medium", (2, 16, 0), None, 41_600),
    single("t3", "t3.large", (2, 32, 0), None, 83_200),
    single("t3a", "t3a.nano", (2, 2, 0), None, 4_700),
    single("t3a", "t3a.micro", (2, 4, 0), None, 9_400),
    single("t3a", "t3a.small", (2, 8, 0), None, 18_800),
    single("t3a", "t3a.medium", (2, 16, 0), None, 37_600),
    single("t3a", "t3a.large", (2, 32, 0), None, 75_200),
    single("t4g", "t4g.nano", (2, 2, 0), None, 4_200),
    single("t4g", "t4g.micro", (2, 4, 0), None, 8_400),
    single("t4g", "t4g.small", (2, 8, 0), None, 16_800),
    single("t4g", "t4g.medium", (2, 16, 0), None, 33_600),
    single("t4g", "t4g.large", (2, 32, 0), None, 67_200),
    single("g4dn", "g4dn.xlarge", (4, 64, 116), Some((1, "T4")), 526_000),
    single("g4dn", "g4dn.2xlarge", (8, 128, 209), Some((1, "T4")), 752_000),
    single("g4dn", "g4dn.4xlarge", (16, 256, 209), Some((1, "T4")), 1_204_000),
    single("g4dn", "g4dn.8xlarge", (32, 512, 838), Some((1, "T4")), 2_176_000),
    single("g4dn", "g4dn.12xlarge", (48, 768, 838), Some((4, "T4")), 3_912_000),
    single("g4dn", "g4dn.16xlarge", (64, 1024, 838), Some((1, "T4")), 4_352_000),
    single("g5", "g5.xlarge", (4, 64, 232), Some((1, "A10G")), 1_006_000),
    single("g5", "g5.2xlarge", (8, 128, 419), Some((1, "A10G")), 1_212_000),
    single("g5", "g5.4xlarge", (16, 256, 558), Some((1, "A10G")), 1_624_000),
    single("g5", "g5.8xlarge", (32, 512, 838), Some((1, "A10G")), 2_448_000),
    single("g5", "g5.12xlarge", (48, 768, 3539), Some((4, "A10G")), 5_672_000),
    single("g5", "g5.16xlarge", (64, 1024, 1769), Some((1, "A10G")), 4_096_000),
    single("g5", "g5.24xlarge", (96, 1536, 3539), Some((4, "A10G")), 8_144_000),
    single("g5", "g5.48xlarge", (192, 3072, 7078), Some((8, "A10G")), 16_288_000),
    single("g6", "g6.xlarge", (4, 64, 232), Some((1, "L4")), 804_800),
    single("g6", "g6.2xlarge", (8, 128, 419), Some((1, "L4")), 977_600),
    single("g6", "g6.4xlarge", (16, 256, 558), Some((1, "L4")), 1_323_200),
    single("g6", "g6.8xlarge", (32, 512, 838), Some((1, "L4")), 2_014_400),
    single("g6", "g6.12xlarge", (48, 768, 3501), Some((4, "L4")), 4_601_600),
    single("g6", "g6.16xlarge", (64, 1024, 1750), Some((1, "L4")), 3_396_800),
    single("g6", "g6.24xlarge", (96, 1536, 3501), Some((4, "L4")), 6_675_200),
    single("g6", "g6.48xlarge", (192, 3072, 7003), Some((8, "L4")), 13_350_400),
    single("p3", "p3.2xlarge", (8, 244, 0), Some((1, "V100")), 3_060_000),
    single("p3", "p3.8xlarge", (32, 976, 0), Some((4, "V100")), 12_240_000),
    single("p3", "p3.16xlarge", (64, 1952, 0), Some((8, "V100")), 24_480_000),
    single("p4d", "p4d.24xlarge", (96, 4608, 7450), Some((8, "A100")), 21_957_642),
    single("p4de", "p4de.24xlarge", (96, 4608, 7450), Some((8, "A100")), 27_447_050),
    single("p5", "p5.48xlarge", (192, 8192, 28_312), Some((8, "H100")), 55_040_000),
];
