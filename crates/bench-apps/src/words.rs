//! Words and numbers of messages, tables and reports.

/// Lays out rows of cells: the first column to the left, the others to the right, two blanks between.
///
/// The first row is the heading. Widths count characters, so that ± and ε take one place. A row with one cell alone is a
/// line of text, which no column is widened for.
pub fn text_table(rows: &[Vec<String>]) -> String {
    let n_columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter()
            .filter(|row| row.len() > 1)
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..n_columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            let padding = " ".repeat(widths[column].saturating_sub(cell.chars().count()));
            let gap = if column == 0 { "" } else { "  " };
            line += &if column == 0 {
                format!("{cell}{padding}")
            } else {
                format!("{gap}{padding}{cell}")
            };
        }
        text += line.trim_end();
        text.push('\n');
    }
    text
}

/// A number with what it counts, as in "1 epoch" or "3 epochs".
pub fn counted(n: usize, what: &str) -> String {
    let plural = if n == 1 { "" } else { "s" };
    format!("{n} {what}{plural}")
}

/// A percentage with two decimals; empty where there is no value.
pub fn percent(value: Option<f64>) -> String {
    value.filter(|v| v.is_finite()).map_or(String::new(), |v| format!("{v:.2}"))
}

/// A shape as in "32 x 64 x 2 x 2".
pub fn shape_text(dims: &[usize]) -> String {
    dims.iter().map(ToString::to_string).collect::<Vec<_>>().join(" x ")
}

/// An attack's name in tables, from its name in files.
pub fn attack_name(name: &str) -> &str {
    match name {
        "pgd" => "PGD",
        "fgsm" => "FGSM",
        "strong_pgd" => "strong PGD",
        "auto" => "AutoAttack",
        "apgd-ce" => "APGD, cross-entropy",
        "apgd-dlr" => "APGD, ratio",
        "apgd-t" => "APGD, targeted",
        "fab-t" => "FAB",
        "square" => "Square",
        other => other,
    }
}

/// With a capital at the start and a full stop at the end.
pub fn sentence(text: &str) -> String {
    let mut chars = text.chars();
    let first = chars.next().map_or_else(String::new, |c| c.to_uppercase().to_string());
    format!("{first}{}.", chars.as_str())
}

/// Texts in order, each once.
pub fn once(texts: impl Iterator<Item = String>) -> Vec<String> {
    let mut texts: Vec<String> = texts.collect();
    texts.sort();
    texts.dedup();
    texts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_lines_end_without_blanks() {
        let rows =
            [vec!["", "ours", "paper"], vec!["clean", "97.1", "97.54 ± 0.06"], vec!["ε", "1", ""]];
        let rows: Vec<Vec<String>> =
            rows.iter().map(|row| row.iter().map(ToString::to_string).collect()).collect();
        assert_eq!(
            text_table(&rows),
            "       ours         paper\n\
             clean  97.1  97.54 ± 0.06\n\
             ε         1\n"
        );
    }

    #[test]
    fn what_was_not_computed_is_blank() {
        assert_eq!(
            (percent(Some(97.126)), percent(None), percent(Some(f64::NAN))),
            ("97.13".into(), "".into(), "".into())
        );
    }
}
