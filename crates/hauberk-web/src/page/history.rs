//! What operators did to a thing, in words.

use hauberk_database::BuildId;
use hauberk_database::audit::Entry;
use jiff::Timestamp;
use serde_json::Value;

/// Lines that are shown.
pub(super) const LINES: i64 = 10;

/// A deed on a page: `{words} by {who}`.
pub(super) struct Line {
    pub(super) words: String,
    pub(super) who: String,
    pub(super) at: Timestamp,
}

/// Words the deeds for the page of a build.
pub(super) fn of_build(entries: Vec<Entry>, build: BuildId) -> Vec<Line> {
    let subject = build.to_string();
    lines(entries, |entry| {
        let with = match entry.action.split('.').next() {
            Some("build") if entry.subject == subject => None,
            kind => Some(format!(" with {} {}", kind.unwrap_or_default(), entry.subject)),
        };
        words(entry) + with.as_deref().unwrap_or_default()
    })
}

/// Words the deeds for the page of what they were done to.
pub(super) fn of_subject(entries: Vec<Entry>) -> Vec<Line> {
    lines(entries, words)
}

/// Words the deeds for a page of several things, each of which is named.
pub(super) fn of_several(entries: Vec<Entry>) -> Vec<Line> {
    lines(entries, |entry| format!("{}: {}", entry.subject, words(entry)))
}

fn lines(entries: Vec<Entry>, words: impl Fn(&Entry) -> String) -> Vec<Line> {
    entries.into_iter().map(|entry| Line { words: words(&entry), who: entry.who, at: entry.at }).collect()
}

fn words(entry: &Entry) -> String {
    let detail = |key: &str| entry.detail.as_ref().and_then(|detail| detail.get(key));
    let is = |key: &str| detail(key).and_then(Value::as_bool).unwrap_or(false);
    let deed = entry.action.split('.').nth(1).unwrap_or_default();
    match deed {
        "cancel" => "canceled".to_owned(),
        "cancel_superseded" => "canceled as superseded".to_owned(),
        "restart" => {
            let mut words = "restarted".to_owned();
            match detail("only").and_then(Value::as_str) {
                Some("failed") => words.push_str(", only what failed"),
                Some("canceled") => words.push_str(", only what was canceled"),
                _ => {}
            }
            if is("dependencies") {
                words.push_str(", with what it needs");
            }
            if is("dependents") {
                words.push_str(", with what needs it");
            }
            words
        }
        "retry" => "to be evaluated again, asked for".to_owned(),
        "evaluate" => "to be looked at, asked for".to_owned(),
        "priority" => match detail("priority").and_then(Value::as_i64) {
            Some(priority) => format!("given priority {priority}"),
            None => "given the priority of its jobs again".to_owned(),
        },
        "emergency" if is("on") => "put before everything".to_owned(),
        "emergency" => "not put before everything any more,".to_owned(),
        "add" => "enrolled".to_owned(),
        "remove" => "removed".to_owned(),
        "pause" => match detail("reason").and_then(Value::as_str) {
            Some(reason) => format!("paused ({reason})"),
            None => "paused".to_owned(),
        },
        "resume" => "given work again".to_owned(),
        "drain" => "told to finish and leave".to_owned(),
        _ => entry.action.clone(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn deeds_are_told_in_words() {
        let entry = |action: &str, subject: &str, detail: Value| Entry {
            at: Timestamp::UNIX_EPOCH,
            who: "anna".into(),
            action: action.into(),
            subject: subject.into(),
            detail: Some(detail),
        };
        let build = |entry: Entry| of_build(vec![entry], BuildId::new(5)).remove(0).words;
        assert_eq!(build(entry("build.cancel", "5", json!({}))), "canceled");
        assert_eq!(build(entry("build.cancel", "4", json!({}))), "canceled with build 4");
        assert_eq!(build(entry("evaluation.cancel", "5", json!({}))), "canceled with evaluation 5");
        let detail = json!({ "only": "failed", "dependents": true });
        let words = "restarted, only what failed, with what needs it";
        assert_eq!(build(entry("build.restart", "5", detail)), words);
        let subject = |entry: Entry| of_subject(vec![entry]).remove(0).words;
        assert_eq!(subject(entry("worker.pause", "w", json!({ "reason": "a disk" }))), "paused (a disk)");
        assert_eq!(subject(entry("build.priority", "5", json!({ "priority": 7 }))), "given priority 7");
        assert_eq!(subject(entry("other.thing", "5", json!(null))), "other.thing");
    }
}
