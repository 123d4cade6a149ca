// SPDX-License-Identifier: MPL-2.0

//! The README names tests that exist.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)] // Helpers outside of test functions.

use std::path::{Path, PathBuf};

/// All files below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found
}

#[test]
fn each_row_names_tests_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = std::fs::read_to_string(root.join("README.md")).unwrap();
    let section = readme.split("\n## Which test shows what").nth(1).unwrap().split("\n## ").next().unwrap();
    let places = [
        "tests",
        "src",
        "../../crates/gst-encoder-glue/src",
        "../../crates/rockchip-mpp/tests",
        "../../crates/rockchip-mpp-sys/tests",
        "../../testing/e2e/tests",
    ];
    let sources: Vec<_> = places.iter().flat_map(|place| files(&root.join(place))).collect();
    let mut named = 0;
    let rows = section.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| what |"));
    for row in rows {
        let cells: Vec<_> = row.trim_matches('|').split(" | ").map(str::trim).collect();
        assert_eq!(cells.len(), 2, "{row}");
        assert!(cells[1].contains('`') || cells[1].contains("needs a board"), "no test: {row}");
        for test in cells[1].split('`').skip(1).step_by(2) {
            let Some((file, name)) = test.split_once("::") else { continue };
            // A program of tests, or a file beside the code, or one of Python's.
            let file = file.strip_prefix("src/").unwrap_or(file);
            let rust = if file.contains('.') { file.to_owned() } else { format!("{file}.rs") };
            let is_there = sources.iter().filter(|path| path.file_name().unwrap() == &rust[..]).any(|path| {
                let text = std::fs::read_to_string(path).unwrap();
                text.contains(&format!("fn {name}()")) || text.contains(&format!("\ndef {name}("))
            });
            assert!(is_there, "no such test: {test}");
            named += 1;
        }
    }
    assert!(named > 60, "only {named} tests are named");
}
