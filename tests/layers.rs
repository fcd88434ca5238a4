//! The architecture, read off the source: what each layer may name, and how large a file may grow.
#![allow(clippy::unwrap_used, missing_docs)]

use std::fs;
use std::path::{Path, PathBuf};

/// Modules of the running layer; everything else in `src/` is pure.
const RUNNING: [&str; 9] =
    ["io", "worker", "control", "captures", "dataplane", "shared", "config", "trouble", "switches"];

const BYTES: [&str; 2] = ["wire", "error"];
const TABLES: [&str; 26] = [
    "rate",
    "damper",
    "tables",
    "segment",
    "change",
    "apply",
    "fdb",
    "fib",
    "snapshot",
    "listing",
    "locals",
    "next_hop",
    "neighbours",
    "slots",
    "pages",
    "shards",
    "mtu",
    "multicast",
    "path",
    "source_key",
    "hash",
    "counters",
    "stats",
    "drop_reason",
    "offload",
    "sync",
];
const FORWARDING: [&str; 10] = [
    "forward", "output", "batch", "metadata", "gso", "coalesce", "event", "prober", "capture",
    "pcapng",
];

/// Longest file, in lines.
const MAX_LINES: usize = 800;

struct Source {
    path: PathBuf,
    /// First component below `src/`, without extension: `wire`, `forward`, `fdb`.
    module: String,
    /// The text without comments and without `#[cfg(test)]` modules.
    code: String,
    lines: usize,
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    let mut directories = vec![root.clone()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                let below = path.strip_prefix(&root).unwrap();
                let module = below.iter().next().unwrap().to_str().unwrap();
                found.push(Source {
                    module: module.trim_end_matches(".rs").to_owned(),
                    code: production_code(&text),
                    lines: text.lines().count(),
                    path: below.to_owned(),
                });
            }
        }
    }
    assert!(found.len() > 20, "the source is where it is looked for");
    found
}

/// Takes out comments and test modules, which end at a closing brace of the same indentation.
fn production_code(text: &str) -> String {
    let mut code = String::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let start = line.trim_start();
        if start.starts_with("//") {
            continue;
        }
        if start.starts_with("#[cfg(test)]") || start.starts_with("#[cfg(all(test,") {
            let end = format!("{}}}", &line[..line.len() - start.len()]);
            let item = lines.next().unwrap_or_default();
            if item.trim_end().ends_with('{') {
                let _ = lines.find(|line| *line == end);
            }
            continue;
        }
        code.push_str(line.split(" // ").next().unwrap());
        code.push('\n');
    }
    code
}

fn pure() -> impl Iterator<Item = Source> {
    sources().into_iter().filter(|source| !RUNNING.contains(&&*source.module))
}

/// Whether `code` names `word` as a whole.
fn names(code: &str, word: &str) -> bool {
    let part = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    code.match_indices(word).any(|(at, _)| {
        let before = at.checked_sub(1).map(|at| code.as_bytes()[at]);
        let after = code.as_bytes().get(at + word.len()).copied();
        !before.is_some_and(part) && !after.is_some_and(part)
    })
}

#[test]
fn the_reader_of_source_sees_what_it_should() {
    let text = "use a;\n// libc\nfn f() {} // libc\n#[cfg(test)]\nmod tests {\n    libc\n}\nlast\n";
    assert_eq!(production_code(text), "use a;\nfn f() {}\nlast\n");
    assert!(names("x = libc::read", "libc") && !names("my_libc_x", "libc"));
}

#[test]
fn the_pure_layers_name_no_operating_system_clock_or_thread() {
    for source in pure() {
        let module = source.module.as_str();
        for word in ["std::os", "libc", "mio", "socket2", "std::thread", "std::fs", "std::env"] {
            assert!(!names(&source.code, word), "{module} names {word}: {:?}", source.path);
        }
        for word in ["Instant::now", "SystemTime", "println", "eprintln", "tun_tap"] {
            assert!(!names(&source.code, word), "{module} names {word}: {:?}", source.path);
        }
    }
}

#[test]
fn unsafe_code_is_below_io_sys_only() {
    for source in sources() {
        let allowed = source.path.starts_with("io/sys") || source.path == Path::new("io/sys.rs");
        assert!(allowed || !names(&source.code, "unsafe"), "unsafe code in {:?}", source.path);
    }
}

#[test]
fn dependencies_point_down() {
    let uses = |source: &Source, module: &str| {
        names(&source.code, &format!("crate::{module}"))
            || names(&source.code, &format!("super::{module}")) && source.path.iter().count() == 1
    };
    let running = RUNNING.iter();
    let above_tables = FORWARDING.iter().chain(running.clone());
    let above_bytes = TABLES.iter().chain(above_tables.clone());
    for source in sources() {
        let module = source.module.as_str();
        let forbidden: Vec<&&str> = match module {
            _ if BYTES.contains(&module) => above_bytes.clone().collect(),
            _ if TABLES.contains(&module) => above_tables.clone().collect(),
            "lib" => Vec::new(),
            _ if RUNNING.contains(&module) => Vec::new(),
            _ => running.clone().collect(),
        };
        for above in forbidden {
            assert!(!uses(&source, above), "{:?} uses {above}, which is above it", source.path);
        }
    }
}

#[test]
fn the_bytes_layer_uses_nothing_of_the_crate_but_itself() {
    for source in sources().iter().filter(|source| source.module == "wire") {
        let elsewhere = source
            .code
            .match_indices("crate::")
            .any(|(at, _)| !source.code[at..].starts_with("crate::wire"));
        assert!(!elsewhere, "{:?}", source.path);
    }
}

#[test]
fn no_file_is_too_long_to_read() {
    for source in sources() {
        let Source { path, lines, .. } = source;
        assert!(lines <= MAX_LINES, "{path:?} has {lines} lines; split it");
    }
}
