// SPDX-License-Identifier: MIT OR Apache-2.0

//! Reads a TOML table key by key, and remembers for each mistake its line and what would have been allowed.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::{Range, RangeInclusive};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// A mistake in a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// From 1 on.
    pub line: usize,
    /// What is wrong, and what is allowed.
    pub text: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.line, self.text)
    }
}

/// The mistakes found so far in one text.
pub struct Problems<'a> {
    text: &'a str,
    found: Vec<Problem>,
}

impl<'a> Problems<'a> {
    /// None yet.
    pub fn new(text: &'a str) -> Self {
        Self { text, found: Vec::new() }
    }

    /// Notes a mistake at a place in the text.
    pub fn add(&mut self, span: Range<usize>, text: impl Into<String>) {
        let before = self.text.as_bytes().get(..span.start).unwrap_or_default();
        let line = 1 + before.iter().filter(|&&byte| byte == b'\n').count();
        self.found.push(Problem { line, text: text.into() });
    }

    /// All, by line.
    pub fn into_sorted(mut self) -> Vec<Problem> {
        self.found.sort_by_key(|problem| problem.line);
        self.found
    }
}

/// A value and where it stands.
pub struct Found<T> {
    /// What was read.
    pub value: T,
    /// Its place in the text.
    pub span: Range<usize>,
}

/// A table whose keys are taken one after the other; [`Table::finish`] complains about those that nobody took.
pub struct Table<'t, 'i> {
    name: String,
    table: &'t DeTable<'i>,
    known: BTreeSet<&'static str>,
}

impl<'t, 'i> Table<'t, 'i> {
    /// Reads `table`, which errors call `name`.
    pub fn new(name: impl Into<String>, table: &'t DeTable<'i>) -> Self {
        Self { name: name.into(), table, known: BTreeSet::new() }
    }

    /// How errors call this table.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A boolean.
    pub fn boolean(&mut self, key: &'static str, problems: &mut Problems<'_>) -> Option<bool> {
        let value = self.take(key)?;
        let found = value.get_ref().as_bool();
        if found.is_none() {
            self.wrong(key, value, "true or false", problems);
        }
        found
    }

    /// A whole number within a range.
    pub fn integer(
        &mut self,
        key: &'static str,
        range: RangeInclusive<u64>,
        problems: &mut Problems<'_>,
    ) -> Option<Found<u64>> {
        let allowed = format!("a whole number, {} to {}", range.start(), range.end());
        self.checked(key, &allowed, problems, |value| {
            value.as_integer().and_then(|number| {
                let number = u64::from_str_radix(number.as_str(), number.radix()).ok()?;
                range.contains(&number).then_some(number)
            })
        })
    }

    /// A text that `check` accepts; `allowed` describes which those are.
    pub fn text(
        &mut self,
        key: &'static str,
        allowed: &str,
        problems: &mut Problems<'_>,
        check: impl Fn(&str) -> bool,
    ) -> Option<Found<String>> {
        self.parsed(key, allowed, problems, |text| check(text).then(|| text.to_owned()))
    }

    /// A text that `parse` understands; `allowed` describes which those are.
    pub fn parsed<T>(
        &mut self,
        key: &'static str,
        allowed: &str,
        problems: &mut Problems<'_>,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Option<Found<T>> {
        self.checked(key, allowed, problems, |value| value.as_str().and_then(&parse))
    }

    /// A value that `check` accepts.
    pub fn checked<T>(
        &mut self,
        key: &'static str,
        allowed: &str,
        problems: &mut Problems<'_>,
        check: impl FnOnce(&DeValue<'i>) -> Option<T>,
    ) -> Option<Found<T>> {
        let value = self.take(key)?;
        match check(value.get_ref()) {
            Some(found) => Some(Found { value: found, span: value.span() }),
            None => {
                self.wrong(key, value, allowed, problems);
                None
            }
        }
    }

    /// A table in this one.
    pub fn table(&mut self, key: &'static str, problems: &mut Problems<'_>) -> Option<Table<'t, 'i>> {
        let value = self.take(key)?;
        match value.get_ref().as_table() {
            Some(table) if self.name.is_empty() => Some(Self::new(key, table)),
            Some(table) => Some(Self::new(format!("{}.{key}", self.name), table)),
            None => {
                self.wrong(key, value, "a table", problems);
                None
            }
        }
    }

    /// All keys and values with their places, in the order of the keys.
    pub fn entries(
        &self,
    ) -> impl Iterator<Item = (&'t str, Range<usize>, &'t Spanned<DeValue<'i>>)> + use<'t, 'i> {
        self.table.iter().map(|(key, value)| (key.get_ref().as_ref(), key.span(), value))
    }

    /// Complains about keys that are not known, except those that `other` accepts.
    pub fn finish(self, problems: &mut Problems<'_>, other: impl Fn(&str) -> bool) {
        for (key, span, _) in self.entries() {
            if !self.known.contains(key) && !other(key) {
                let known: Vec<_> = self.known.iter().copied().collect();
                let place = if self.name.is_empty() { String::new() } else { format!("[{}] ", self.name) };
                problems.add(span, format!("{place}unknown key '{key}'; known are {}", known.join(", ")));
            }
        }
    }

    fn take(&mut self, key: &'static str) -> Option<&'t Spanned<DeValue<'i>>> {
        self.known.insert(key);
        self.table.iter().find(|(name, _)| name.get_ref() == key).map(|(_, value)| value)
    }

    fn wrong(&self, key: &str, value: &Spanned<DeValue<'_>>, allowed: &str, problems: &mut Problems<'_>) {
        let span = value.span();
        let written: String = problems.text.get(span.clone()).unwrap_or_default().chars().take(60).collect();
        let written = written.lines().next().unwrap_or_default().to_owned();
        let place = if self.name.is_empty() { String::new() } else { format!("[{}] ", self.name) };
        problems.add(span, format!("{place}{key} = {written}: must be {allowed}"));
    }
}
