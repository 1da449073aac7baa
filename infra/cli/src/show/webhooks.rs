//! Rules of webhooks.

use crate::{
    table::{render, table},
    text::folder,
};
use comfy_table::Cell;
use contract::webhook::Rule;

/// Rules of webhooks, as a table.
pub(crate) fn rules(rules: &[Rule], home: Option<&str>) -> String {
    let mut table = table(&["NAME", "FROM", "WHEN", "THEN", "FLOW"]);
    for rule in rules {
        table.add_row([
            Cell::new(&rule.name),
            Cell::new(&rule.sender),
            Cell::new(when(rule)),
            Cell::new(rule.wish.word()),
            Cell::new(folder(&rule.flow.lineage, home)),
        ]);
    }
    render(table)
}

/// A rule of a webhook, as a sentence.
pub(crate) fn rule(rule: &Rule, home: Option<&str>) -> String {
    let (when, then) = (when(rule), rule.wish.word());
    format!(
        "on {when} from {}, {then} {}",
        rule.sender,
        folder(&rule.flow.lineage, home)
    )
}

pub(super) fn when(rule: &Rule) -> String {
    let only = &rule.only;
    let mut text = rule.event.clone();
    for (word, value) in [
        (" of ", &only.repository),
        (" to ", &only.branch),
        (" of the tag ", &only.tag),
        (" to ", &only.environment),
    ] {
        if let Some(value) = value {
            text += &format!("{word}{value}");
        }
    }
    if !only.paths.is_empty() {
        text += &format!(" that touches {}", only.paths.join(" or "));
    }
    text
}
