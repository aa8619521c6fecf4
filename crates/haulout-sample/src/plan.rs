//! Which paths a sample has, how large they are and what they refer to: shaped
//! like the closure of a NixOS system. Some base paths that everything sits
//! on, packages with a long tail of sizes, many small units and configuration
//! files, one path that collects the packages, and the system on top.

use crate::rng::Rng;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// Directories with programs, libraries, documents.
    Package,
    /// A small file, or a directory around one.
    Unit,
    /// One file.
    BigFile,
    /// This many small files.
    ManyFiles(usize),
}

#[derive(Debug, Clone)]
pub(crate) struct Planned {
    pub(crate) name: String,
    pub(crate) shape: Shape,
    /// Bytes of content, roughly.
    pub(crate) bytes: u64,
    /// Indices of earlier paths, ascending.
    pub(crate) references: Vec<usize>,
    pub(crate) refers_to_itself: bool,
    /// The generation in which it got its content.
    pub(crate) changed: u32,
}

const WORDS: &[&str] = &[
    "acl",
    "attr",
    "bash",
    "bind",
    "boost",
    "brotli",
    "bzip2",
    "cairo",
    "coreutils",
    "curl",
    "dbus",
    "expat",
    "ffmpeg",
    "flac",
    "font",
    "gcc",
    "gdk",
    "git",
    "glib",
    "gnutls",
    "gtk",
    "icu",
    "jq",
    "kernel",
    "kmod",
    "less",
    "llvm",
    "mesa",
    "ncurses",
    "nettle",
    "openssl",
    "pam",
    "pango",
    "perl",
    "python",
    "readline",
    "ruby",
    "sqlite",
    "systemd",
    "tar",
    "udev",
    "vulkan",
    "wayland",
    "xz",
    "zlib",
    "zsh",
    "zstd",
];

/// How many other paths a path may have directly above it and still change in
/// an ordinary update.
const CHANGES_BELOW_MAX: usize = 2;

/// The paths of a sample in an order in which references point backwards; the
/// last is the top.
pub(crate) fn plan(seed: u64, paths: usize, bytes: u64, generation: u32) -> Vec<Planned> {
    let mut rng = Rng::new(seed, &[b"plan"]);
    let mut planned = Vec::with_capacity(paths);
    let units = paths * 42 / 100;
    // Two for the collecting path and the top, two for the landmarks.
    let landmarks = if paths >= 12 { 2 } else { 0 };
    let packages = paths - units - landmarks - 2;
    for index in 0..packages {
        planned.push(package(&mut rng, index, packages));
    }
    if landmarks > 0 {
        planned.push(single("sample-big-file-1.0", Shape::BigFile, bytes / 3));
        let files = (bytes / 60_000).clamp(20, 2000) as usize;
        let shape = Shape::ManyFiles(files);
        planned.push(single("sample-many-files-1.0", shape, (bytes / 20).min(4000 * files as u64)));
    }
    let lower = planned.len();
    for index in 0..units {
        planned.push(unit(&mut rng, index));
    }
    fit(&mut planned, packages, bytes);
    refer(&mut rng, &mut planned, packages, lower);
    changes(seed, &mut planned, packages, generation);
    planned
}

fn single(name: &str, shape: Shape, bytes: u64) -> Planned {
    Planned {
        name: name.to_owned(),
        shape,
        bytes,
        references: Vec::new(),
        refers_to_itself: false,
        changed: 1,
    }
}

fn package(rng: &mut Rng, index: usize, packages: usize) -> Planned {
    let word = WORDS[rng.below(WORDS.len())];
    let kind = ["", "-lib", "-dev", "-bin"][rng.below(4)];
    let name = format!("{word}{kind}-{}.{}.{index}", rng.below(12), rng.below(40));
    let bytes = if index < (packages / 60).max(2) {
        [40_000, 300_000, 900_000][rng.below(3)]
    } else {
        // Median 45 KB, and one in a hundred above 50 MB.
        rng.log_normal(15.5, 3.2).clamp(1200, 90_000_000)
    };
    let mut planned = single(&name, Shape::Package, bytes);
    planned.refers_to_itself = rng.chance(0.35);
    planned
}

fn unit(rng: &mut Rng, index: usize) -> Planned {
    let word = WORDS[rng.below(WORDS.len())];
    let name = match rng.below(5) {
        0 => format!("unit-{word}-{index}.service"),
        1 => format!("etc-{word}-{index}"),
        2 => format!("{word}-{index}.conf"),
        3 => format!("{word}-{index}-wrapper"),
        _ => format!("unit-script-{word}-{index}-start"),
    };
    single(&name, Shape::Unit, rng.log_normal(10.0, 1.4).clamp(160, 60_000))
}

/// Scales the sizes so that all together have the wanted size: only the
/// largest packages if that is enough, so that the small ones stay typical.
/// None becomes as large as the big file.
fn fit(planned: &mut [Planned], packages: usize, bytes: u64) {
    let most = bytes / 4;
    planned[..packages].iter_mut().for_each(|path| path.bytes = path.bytes.min(most));
    let total: u64 = planned.iter().map(|path| path.bytes).sum();
    let mut by_size: Vec<usize> = (0..packages).collect();
    by_size.sort_by_key(|&index| std::cmp::Reverse((planned[index].bytes, index)));
    by_size.truncate((packages / 12).max(1));
    let large: u64 = by_size.iter().map(|&index| planned[index].bytes).sum();
    let others = total - large;
    let scale = |path: &mut Planned, to: u64, from: u64| {
        path.bytes = (u128::from(path.bytes) * u128::from(to) / u128::from(from.max(1))) as u64;
    };
    if others < bytes {
        let to = bytes - others;
        for index in by_size {
            scale(&mut planned[index], to, large);
            planned[index].bytes = planned[index].bytes.min(most);
        }
    } else {
        planned.iter_mut().for_each(|path| scale(path, bytes, total));
    }
}

/// Adds references, preferring what is referred to already, and the two paths
/// on top.
fn refer(rng: &mut Rng, planned: &mut Vec<Planned>, packages: usize, lower: usize) {
    // Every reference puts its target into the urn again.
    let mut urn: Vec<usize> = Vec::new();
    for (index, path) in planned.iter_mut().enumerate() {
        let wanted = match index {
            0 => 0,
            _ if index < packages => 1 + rng.below(7),
            _ if index < lower => 1,
            _ => [0, 1, 1, 2, 3, 5][rng.below(6)],
        };
        let known = index.min(packages);
        let mut references: Vec<usize> = (0..wanted)
            .map(|_| {
                let from_urn = !urn.is_empty() && rng.chance(0.7);
                if from_urn { urn[rng.below(urn.len())] } else { rng.below(known) }
            })
            .collect();
        references.sort_unstable();
        references.dedup();
        urn.extend(references.iter().flat_map(|&reference| [reference; 3]));
        path.references = references;
    }
    let mut loose = vec![true; planned.len()];
    planned.iter().flat_map(|path| &path.references).for_each(|&index| loose[index] = false);
    let collected = |range: std::ops::Range<usize>| range.filter(|&index| loose[index]).collect();
    let (below, above): (Vec<_>, Vec<_>) = (collected(0..lower), collected(lower..planned.len()));
    let mut system_path = single("sample-system-path", Shape::Package, 20_000);
    system_path.references = below;
    let mut top = single("sample-nixos-system-26.05", Shape::Package, 4_000);
    top.references = above;
    top.references.push(planned.len());
    planned.push(system_path);
    planned.push(top);
}

/// Later generations: an ordinary update gives some paths that few others sit
/// on another content; every fourth also the first base path, on which nearly
/// all sit. That paths above change too follows from how they are named.
fn changes(seed: u64, planned: &mut [Planned], packages: usize, generation: u32) {
    let mut above = vec![0; planned.len()];
    let body = planned.len() - 2;
    planned[..body].iter().flat_map(|path| &path.references).for_each(|&index| above[index] += 1);
    for generation in 2..=generation {
        let mut rng = Rng::new(seed, &[b"generation", &generation.to_le_bytes()]);
        for (path, above) in planned[..body].iter_mut().zip(&above) {
            if rng.chance(0.12) && *above <= CHANGES_BELOW_MAX {
                path.changed = generation;
            }
        }
        // There is always something to update.
        planned[packages - 1].changed = generation;
        if generation % 4 == 1 {
            planned[0].changed = generation;
        }
    }
}
