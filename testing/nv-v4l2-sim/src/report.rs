// SPDX-License-Identifier: MIT OR Apache-2.0

//! What the application did, for tests to read: counts, controls, and broken rules that real libraries would not report.

use crate::surface::lock;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::{LazyLock, Mutex};

#[derive(Default)]
struct Report {
    counts: BTreeMap<&'static str, i64>,
    controls: BTreeMap<&'static str, String>,
    violations: Vec<String>,
}

static REPORTS: LazyLock<Mutex<BTreeMap<String, Report>>> = LazyLock::new(Mutex::default);

/// Adds to a count.
pub fn count(tag: &str, what: &'static str, add: i64) {
    *lock(&REPORTS).entry(tag.to_owned()).or_default().counts.entry(what).or_default() += add;
}

/// Notes a control that was set.
pub fn control(tag: &str, name: &'static str, value: String) {
    lock(&REPORTS).entry(tag.to_owned()).or_default().controls.insert(name, value);
}

/// Notes a broken rule by the name of its row in RULES.md.
pub fn violation(tag: &str, rule: &str, text: &str) {
    let mut reports = lock(&REPORTS);
    let violations = &mut reports.entry(tag.to_owned()).or_default().violations;
    // Enough to see; a loop must not fill the memory.
    if violations.len() < 100 {
        violations.push(format!("{rule}: {text}"));
    }
}

/// All of a tag as lines: `count NAME N`, `control NAME VALUE`, `violation RULE: TEXT`.
pub fn text(tag: &str) -> String {
    let reports = lock(&REPORTS);
    let mut out = String::new();
    if let Some(report) = reports.get(tag) {
        for (name, value) in &report.counts {
            let _ = writeln!(out, "count {name} {value}");
        }
        for (name, value) in &report.controls {
            let _ = writeln!(out, "control {name} {value}");
        }
        for violation in &report.violations {
            let _ = writeln!(out, "violation {violation}");
        }
    }
    out
}
