// SPDX-License-Identifier: MPL-2.0

//! The README's tables say what the elements have.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::collections::{BTreeMap, BTreeSet};

use common::*;
use gst::prelude::*;
use gst_check::Harness;

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

fn names(structure: &gst::StructureRef) -> BTreeSet<String> {
    structure.fields().map(|name| name.to_string()).collect()
}

#[test]
fn properties_and_their_defaults() {
    init();
    for (factory, head) in [
        ("rtpjpegpay-rs", "payloader property"),
        ("rtpjpegdepay-rs", "depayloader property"),
        ("rtpudpsink-rs", "sink property"),
    ] {
        let element = gst::ElementFactory::make(factory).build().unwrap();
        let table = table(head);
        let all = element.list_properties();
        let own: BTreeSet<String> = all
            .iter()
            .filter(|property| property.owner_type() == element.type_())
            .map(|property| property.name().to_string())
            .collect();
        assert_eq!(table.keys().cloned().collect::<BTreeSet<_>>(), own, "{factory}");
        for (name, row) in table {
            let cell = row.split('|').nth(3).unwrap().trim().to_owned();
            let value = element.property_value(&name);
            let text = match value.serialize() {
                Ok(text) if !name.ends_with("stats") => text.to_string(),
                _ => "–".into(),
            };
            let text = if text == "NULL" { "–".into() } else { text };
            assert_eq!(cell, text, "{factory} {name}");
        }
    }
}

#[test]
fn statistics() {
    let harness = payloader();
    let fields: BTreeSet<_> = table("payloader field").into_keys().collect();
    assert_eq!(names(&stats(&harness)), fields);
    let harness = Harness::new("rtpjpegdepay-rs");
    let fields: BTreeSet<_> = table("depayloader field").into_keys().collect();
    assert_eq!(names(&harness.element().unwrap().property::<gst::Structure>("frame-stats")), fields);
    let sink = gst::ElementFactory::make("rtpudpsink-rs").build().unwrap();
    let fields: BTreeSet<_> = table("sink field").into_keys().collect();
    assert_eq!(names(&sink.property::<gst::Structure>("stats")), fields);
}
