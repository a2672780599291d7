//! Findings of a denial for people: the reasons, and a table of claim, expected, found and fix.

use attestation_service::Finding;
use serde_json::Value;

use super::table;

/// Renders findings; `fix` stands where a finding names none.
pub(crate) fn render(findings: &[Finding], fix: Option<&str>) -> String {
    let numbered = findings.iter().zip(1..);
    let mut lines: Vec<String> =
        numbered.clone().map(|(finding, number)| format!("{number}. {}", escaped(&finding.message))).collect();
    let rows = numbered.map(|(finding, number)| row(finding, number, fix)).collect();
    lines.push(String::new());
    lines.push(table::render(&["", "CLAIM", "EXPECTED", "FOUND", "FIX"], rows));
    lines.join("\n")
}

fn row(finding: &Finding, number: i32, fix: Option<&str>) -> Vec<String> {
    let text = |text: Option<&str>| text.map_or_else(|| "-".to_owned(), escaped);
    vec![
        number.to_string(),
        text(finding.claim.as_deref()),
        finding.expected.as_ref().map_or_else(|| "-".to_owned(), value),
        finding.found.as_ref().map_or_else(|| "-".to_owned(), value),
        text(finding.fix.as_deref().or(fix)),
    ]
}

/// One line each for the members of a list; a string without its quotes.
fn value(value: &Value) -> String {
    match value {
        Value::String(text) => escaped(text),
        Value::Array(members) if members.is_empty() => "(none)".to_owned(),
        Value::Array(members) => members.iter().map(self::value).collect::<Vec<_>>().join("\n"),
        other => other.to_string(),
    }
}

/// Parts of it may be a guest's words: no control character reaches the terminal.
fn escaped(text: &str) -> String {
    text.chars().flat_map(|char| if char.is_control() { char.escape_default().collect() } else { vec![char] }).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_table_shows_every_member_and_no_control_character() {
        let whole = Finding {
            claim: Some("tee.vmpl".to_owned()),
            expected: Some(json!([0, "a"])),
            found: Some(json!("\u{1b}[2J")),
            fix: Some("ask at 0".to_owned()),
            ..Finding::new("wrong\nlevel")
        };
        let text = render(&[whole, Finding::new("second")], Some("do so"));
        let expected = "1. wrong\\nlevel\n2. second\n\n    CLAIM     EXPECTED  FOUND      FIX\n \
                        1  tee.vmpl  0         \\u{1b}[2J  ask at 0\n              a\n 2  -         -         -          do so";
        assert_eq!(text, expected);
    }
}
