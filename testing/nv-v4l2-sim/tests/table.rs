// SPDX-License-Identifier: MIT OR Apache-2.0

//! RULES.md is true: its tests exist, and each name that the code reports has its row.

#![allow(clippy::unwrap_used)]

use std::path::Path;

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    std::fs::read_to_string(path).unwrap()
}

/// Cells of the table's rows.
fn rows() -> Vec<Vec<String>> {
    read("RULES.md")
        .lines()
        .filter(|line| line.starts_with("| ") && !line.starts_with("| name "))
        .map(|line| line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect())
        .collect()
}

#[test]
fn each_row_has_a_reference_and_a_test_that_exists() {
    let rows = rows();
    assert!(rows.len() > 50, "{} rows", rows.len());
    for row in rows {
        let [_, rule, reference, _, test] = row.as_slice() else { panic!("five cells: {row:?}") };
        assert!(reference.starts_with('§') || reference == "K", "{rule}: {reference}");
        let (file, name) = test.trim_matches('`').split_once("::").expect("file::test");
        let code = read(&format!("tests/{file}.rs"));
        assert!(code.contains(&format!("#[test]\nfn {name}() {{")), "{rule}: there is no test {test}");
    }
}

#[test]
fn each_reported_name_has_its_row_and_its_test_looks_for_it() {
    let rows = rows();
    let mut names = Vec::new();
    for file in ["device", "queue", "exports"] {
        let code = read(&format!("src/{file}.rs"));
        let code: String = code.split_whitespace().collect();
        for marker in [".broke(\"", "violation(&config.tag,\"", "violation(&tag,\"", "=>\""] {
            names.extend(code.split(marker).skip(1).filter_map(|rest| {
                let name = rest.split('"').next()?;
                let kebab = name.contains('-')
                    && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
                kebab.then(|| name.to_owned())
            }));
        }
    }
    names.sort();
    names.dedup();
    assert!(names.len() > 30, "{names:?}");
    for name in &names {
        let row = rows.iter().find(|row| row[0] == format!("`{name}`"));
        let row = row.unwrap_or_else(|| panic!("{name} has no row"));
        let (file, _) = row[4].trim_matches('`').split_once("::").unwrap();
        let code = read(&format!("tests/{file}.rs"));
        assert!(
            code.contains(&format!("\"{name}\"")) || code.contains(&format!("violation {name}")),
            "{name}"
        );
    }
    // And no row for a name that nothing reports.
    for row in &rows {
        let name = row[0].trim_matches('`');
        assert!(name == "–" || names.iter().any(|known| known == name), "{name} is not in the code");
    }
}
