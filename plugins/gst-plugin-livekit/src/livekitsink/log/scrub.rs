// SPDX-License-Identifier: MPL-2.0

//! Takes secrets out of lines that others wrote. Ours have none; what crates below print of messages and URLs is not
//! in our hands. Rather too much is taken out than too little.

/// What stands behind these words (in any case, also as the last part of a longer one) and `:` or `=` is a secret: tokens, ICE
/// and relay passwords.
const KEYS: [&str; 11] = [
    "token",
    "secret",
    "pass",
    "password",
    "passwd",
    "pwd",
    "passphrase",
    "credential",
    "credentials",
    "authorization",
    "key",
];
const INSTEAD: &str = "***";

/// The line without what looks like a secret.
pub(super) fn scrub(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while !rest.is_empty() {
        let word = rest.find(|c: char| !is_word(c)).unwrap_or(rest.len());
        if word == 0 {
            let next = rest.find(is_word).unwrap_or(rest.len());
            let (plain, after) = rest.split_at(next);
            out.push_str(plain);
            rest = after;
            continue;
        }
        let (name, after) = rest.split_at(word);
        rest = after;
        if is_token(name) {
            out.push_str(INSTEAD);
            continue;
        }
        out.push_str(name);
        if let Some(begin) = value_behind(name, rest) {
            let (separator, value) = rest.split_at(begin);
            // Between quotes it may have blanks.
            let quote = separator.chars().last().filter(|c| matches!(c, '"' | '\''));
            let end = match quote {
                Some(quote) => value.find(quote),
                None => value.find(ends_value),
            };
            let end = end.unwrap_or(value.len());
            if end > 0 {
                out.push_str(separator);
                out.push_str(INSTEAD);
                rest = value.split_at(end).1;
            }
        }
    }
    out
}

/// Of what names, tokens and keys consist.
fn is_word(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | '-' | '.')
}

/// A JSON web token: three parts in base64url, of which the first is a JSON object.
fn is_token(word: &str) -> bool {
    word.starts_with("eyJ") && word.matches('.').count() >= 2
}

fn ends_value(c: char) -> bool {
    c.is_whitespace() || matches!(c, '"' | '\'' | ',' | ';' | '&' | ')' | '}' | ']' | '\\')
}

/// Where the value of a secret begins behind its name.
fn value_behind(name: &str, rest: &str) -> Option<usize> {
    let name = name.to_ascii_lowercase();
    if name == "bearer" || name == "basic" {
        return rest.starts_with(' ').then_some(1);
    }
    let last = name.rsplit(['_', '-', '.']).next().unwrap_or_default();
    if !KEYS.contains(&last) {
        return None;
    }
    let separator = rest.trim_start_matches([' ', '"', '\'', '\\']);
    let value = separator.strip_prefix([':', '='])?;
    let value = value.trim_start_matches([' ', '"', '\'', '\\']);
    let value = ["Some(", "Bearer ", "Basic "].iter().find_map(|p| value.strip_prefix(p)).unwrap_or(value);
    let value = value.trim_start_matches(['"', '\'', '\\']);
    Some(rest.len() - value.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJtZSJ9.c2lnbmF0dXJl-_x";

    #[test]
    fn secrets_are_taken_out_wherever_they_stand() {
        for (line, expected) in [
            (format!("ws://h/rtc?access_token={TOKEN}&auto=1"), "ws://h/rtc?access_token=***&auto=1"),
            ("ws://h/rtc?access_token=plain%20one&auto=1".into(), "ws://h/rtc?access_token=***&auto=1"),
            (format!("sent {TOKEN}."), "sent ***"),
            (format!("RefreshToken({TOKEN:?})"), "RefreshToken(\"***\")"),
            (format!("Authorization: Bearer {TOKEN}"), "Authorization: Bearer ***"),
            ("authorization=Basic dXNlcjpwYXNz".into(), "authorization=Basic ***"),
            (
                "IceServer { urls: [\"turn:h\"], username: \"u\", credential: \"s3cr+t/=\" }".into(),
                "IceServer { urls: [\"turn:h\"], username: \"u\", credential: \"***\" }",
            ),
            ("{\"password\": \"a b\"}".into(), "{\"password\": \"***\"}"),
            ("a=ice-pwd:abc+/def\\r\\na=setup:active".into(), "a=ice-pwd:***\\r\\na=setup:active"),
            (
                "Creds { ufrag: \"u\", pass: \"p\", api_secret: Some(\"x\") }".into(),
                "Creds { ufrag: \"u\", pass: \"***\", api_secret: Some(\"***\") }",
            ),
        ] {
            let scrubbed = scrub(&line);
            assert_eq!(scrubbed, expected);
        }
    }

    #[test]
    fn everything_else_stays_as_it_is() {
        for line in [
            "",
            "ICE state=Connected remote=10.0.0.1:7882",
            "the token has expired; credentials from api-key and api-secret",
            "a keyframe: 12 bytes, größer 日本",
            "eyJust a word",
        ] {
            assert_eq!(scrub(line), line);
        }
    }
}
