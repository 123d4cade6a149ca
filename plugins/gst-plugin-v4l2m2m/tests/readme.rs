// SPDX-License-Identifier: MPL-2.0

//! The README's tables say what the elements have.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::collections::{BTreeMap, BTreeSet};

use common::*;
use gst::prelude::*;

const README: &str = include_str!("../README.md");

/// The names in the first column of the table whose head begins with `| head |`, with their rows.
fn table(head: &str) -> BTreeMap<String, String> {
    let start = format!("| {head} |");
    let rows = README.lines().skip_while(|line| !line.starts_with(&start)).skip(2);
    let names: BTreeMap<_, _> = rows
        .take_while(|line| line.starts_with('|'))
        .flat_map(|line| {
            let cell = line.split('|').nth(1).unwrap();
            cell.split('`').skip(1).step_by(2).map(|name| (name.to_owned(), line.to_owned()))
        })
        .collect();
    assert!(!names.is_empty(), "no table with the head '{head}'");
    names
}

#[test]
fn properties_and_their_defaults() {
    compare("v4l2m2menc", "property");
    compare("jetsonv4l2enc", "Jetson property");
}

fn compare(element: &str, head: &str) {
    init();
    let element = gst::ElementFactory::make(element).build().unwrap();
    let table = table(head);
    let all = element.list_properties();
    let own: BTreeSet<String> = all
        .iter()
        .filter(|property| property.owner_type() == element.type_())
        .map(|property| property.name().to_string())
        .collect();
    assert_eq!(table.keys().cloned().collect::<BTreeSet<_>>(), own);
    for (name, row) in table {
        let cell = row.split('|').nth(3).unwrap().trim().to_owned();
        // Structures have no default, and NULL ones cannot be written as text.
        let structure = element.find_property(&name).unwrap().value_type() == gst::Structure::static_type();
        let value = element.property_value(&name);
        let text = if structure { None } else { value.serialize().ok().filter(|text| text != "NULL") };
        let text = text.map_or("–".to_owned(), |text| text.to_string());
        assert_eq!(cell, text, "{name}");
    }
}

#[test]
fn statistics() {
    init();
    for element in ["v4l2m2menc", "jetsonv4l2enc"] {
        let element = gst::ElementFactory::make(element).build().unwrap();
        let stats = element.property::<gst::Structure>("stats");
        let names: BTreeSet<String> = stats.fields().map(|name| name.to_string()).collect();
        assert_eq!(table("field").into_keys().collect::<BTreeSet<_>>(), names);
    }
}

/// The tests that the feature tables name, as `file::test`.
#[test]
fn named_tests_exist() {
    let read = |path: &str| {
        std::fs::read_to_string(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
    };
    let rows: Vec<&str> = README.lines().filter(|line| line.starts_with('|')).collect();
    let names: BTreeSet<(&str, &str)> = rows
        .iter()
        .flat_map(|row| row.split('`').skip(1).step_by(2))
        .filter_map(|cell| cell.split_once("::"))
        .collect();
    assert!(names.len() > 50, "{}", names.len());
    for (file, name) in names {
        let (path, code) = match file {
            "encoder" => {
                ("../../crates/v4l2-m2m/tests/encoder.rs".to_owned(), format!("#[test]\nfn {name}() {{"))
            }
            "uml" => ("../../testing/uml/tests/test_v4l2m2menc.py".to_owned(), format!("\ndef {name}(")),
            _ => (format!("tests/{file}.rs"), format!("#[test]\nfn {name}() {{")),
        };
        assert!(read(&path).contains(&code), "there is no {file}::{name}");
    }
    // What no test shows needs a board, or lies in how the tests are built.
    for head in ["| feature | verified on", "| feature | `nvv4l2…enc`"] {
        let table = README.lines().skip_while(|line| !line.starts_with(head)).skip(2);
        for row in table.take_while(|line| line.starts_with('|')) {
            let board = row.trim_end_matches(" |").rsplit(" | ").next().unwrap();
            assert!(row.contains("::") || board != "–", "{row}");
        }
    }
}
