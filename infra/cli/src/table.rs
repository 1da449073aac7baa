//! Tables, as they are printed.

use comfy_table::{Attribute, Cell, ContentArrangement, Table, presets};

pub(crate) fn table(head: &[&str]) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled);
    if !head.is_empty() {
        table.set_header(head.iter().map(|name| Cell::new(name).add_attribute(Attribute::Dim)));
    }
    table
}

pub(crate) fn render(mut table: Table) -> String {
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.trim_fmt()
}

/// Names and values, a pair a line.
pub(crate) fn pairs(rows: Vec<(&str, Cell)>) -> String {
    let mut table = table(&[]);
    for (name, value) in rows {
        table.add_row([Cell::new(name).add_attribute(Attribute::Dim), value]);
    }
    render(table)
}
