//! The table of `docs/vtep.md` is complete, and what it and `docs/coming-from.md` name is there.
#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

const ROWS: std::ops::RangeInclusive<u32> = 1..=29;

/// Begins the second cell of a row that nothing shows yet.
const IN_WORK: &str = "*in work*";

struct Row {
    in_work: bool,
    /// Files with the tests in them that are named.
    tests: Vec<(String, String)>,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// What stands between backquotes.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// The rows `| number | what holds | tests |` of the page; a file stands before the tests that are in it.
fn table() -> BTreeMap<u32, Row> {
    let page = fs::read_to_string(root().join("docs/vtep.md")).unwrap();
    let mut rows = BTreeMap::new();
    for line in page.lines() {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let Some(number) = cells.get(1).and_then(|cell| cell.parse().ok()) else { continue };
        assert_eq!(cells.len(), 5, "three cells, without | in them: {line}");
        let mut tests = Vec::new();
        let mut file = None;
        for word in quoted(cells[3]) {
            if word.contains('/') {
                file = Some(word.to_owned());
            } else {
                let file =
                    file.clone().unwrap_or_else(|| panic!("row {number}: {word} of which file?"));
                tests.push((file, word.to_owned()));
            }
        }
        let row = Row { in_work: cells[2].starts_with(IN_WORK), tests };
        assert!(rows.insert(number, row).is_none(), "row {number} is there twice");
    }
    rows
}

fn rust_files(directory: &str, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(root().join(directory)).unwrap() {
        let path = entry.unwrap().path();
        let below = path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
        if path.is_dir() {
            rust_files(&below, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(below.into());
        }
    }
}

/// Names of functions in a source that begin with `row_`, with the number that follows.
fn tests_of_rows(source: &str) -> impl Iterator<Item = (u32, &str)> {
    source.match_indices("fn row_").filter_map(|(at, _)| {
        let name = source[at + 3..].split(|c: char| !c.is_alphanumeric() && c != '_').next()?;
        Some((name.split('_').nth(1)?.parse().ok()?, name))
    })
}

#[test]
fn every_row_is_there_and_what_is_not_in_work_has_a_test_of_its_name() {
    let table = table();
    assert!(table.keys().copied().eq(ROWS), "rows {:?}", table.keys());
    for (number, row) in table {
        let own = format!("row_{number:02}_");
        assert!(
            row.in_work || row.tests.iter().any(|(_, test)| test.starts_with(&own)),
            "row {number} has no test called {own}..."
        );
    }
}

#[test]
fn every_test_that_is_named_exists() {
    for (number, row) in table() {
        for (file, test) in row.tests {
            let source = fs::read_to_string(root().join(&file));
            let source = source.unwrap_or_else(|e| panic!("row {number}: {file}: {e}"));
            let found = source.contains(&format!("fn {test}("));
            assert!(found, "row {number}: {file} has no test {test}");
        }
    }
}

#[test]
fn every_test_of_a_row_is_in_the_table() {
    let table = table();
    let mut files = Vec::new();
    for directory in ["src", "tests", "examples"] {
        rust_files(directory, &mut files);
    }
    for file in files {
        let source = fs::read_to_string(root().join(&file)).unwrap();
        for (number, test) in tests_of_rows(&source) {
            let row =
                table.get(&number).unwrap_or_else(|| panic!("{test}: there is no row {number}"));
            let named = row.tests.iter().any(|(of, name)| Path::new(of) == file && name == test);
            assert!(named, "{test} of {} is not in row {number}", file.display());
        }
    }
}

/// `Segment::mtu` is a field or a function of that name, in a file that is about the type.
#[test]
fn every_name_of_the_library_exists() {
    let mut files = Vec::new();
    rust_files("src", &mut files);
    let sources: Vec<String> =
        files.iter().map(|file| fs::read_to_string(root().join(file)).unwrap()).collect();
    let page = fs::read_to_string(root().join("docs/coming-from.md")).unwrap();
    let names: Vec<_> = quoted(&page).filter_map(|word| word.split_once("::")).collect();
    assert!(names.len() > 20);
    for (of, member) in names {
        let types =
            [format!("pub struct {of} "), format!("pub struct {of}("), format!("impl {of} ")];
        let member = [format!("pub {member}: "), format!("pub fn {member}(")];
        let found = sources.iter().any(|source| {
            types.iter().any(|name| source.contains(name))
                && member.iter().any(|name| source.contains(name))
        });
        assert!(found, "{of}::{} is not there", member[0]);
    }
}

#[test]
fn names_of_tests_are_found_in_source() {
    // In two parts, so that this file itself has no such test.
    let source = ["#[test]\nfn ", "row_07_a_b() {}\nfn rows() {}\nfn ", "row_of() {}\n"].concat();
    assert_eq!(tests_of_rows(&source).collect::<Vec<_>>(), [(7, "row_07_a_b")]);
}
