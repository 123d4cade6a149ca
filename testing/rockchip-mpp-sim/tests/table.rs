// SPDX-License-Identifier: MIT OR Apache-2.0

//! The table of rules names tests that exist.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use std::path::Path;

#[test]
fn every_rule_cites_a_section_and_names_a_test() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut tests = String::new();
    for file in std::fs::read_dir(root.join("tests")).unwrap() {
        let path = file.unwrap().path();
        if path.is_file() {
            tests += &std::fs::read_to_string(path).unwrap();
        }
    }
    let table = std::fs::read_to_string(root.join("RULES.md")).unwrap();
    let rules = table.split("## Not observed").next().unwrap();
    let mut rows = 0;
    for line in rules.lines().filter(|l| l.starts_with("| ") && !l.starts_with("| rule ")) {
        let cells: Vec<_> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        assert_eq!(cells.len(), 3, "{line}");
        assert!(cells[1].split(", ").all(|s| s.starts_with('§')), "no section: {line}");
        let name = cells[2].trim_matches('`');
        assert!(tests.contains(&format!("#[test]\nfn {name}()")), "no such test: {name}");
        rows += 1;
    }
    assert!(rows >= 50, "{rows} rows");
}
