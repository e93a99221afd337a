//! The three forms of a table.

use bench_apps::report::table::{Cell, Head, Row, Table};
use bench_apps::statistic::{Figure, Statistic};

fn table() -> Table {
    let mut row = Row {
        group: "MNIST".into(),
        small: "1 seed".into(),
        label: "clean".into(),
        cells: vec![
            Cell::compared(Statistic::of(&[97.0, 98.0]), Some(Figure::Mean([97.54, 0.06]))),
            Cell::compared(Statistic::of(&[98.0]), None),
            Cell::compared(None, Some(Figure::Single(88.12))),
        ],
    };
    row.mark_best(&[Some(97.5), Some(98.0), None]);
    let other = Row { label: "certified".into(), cells: vec![Cell::default(); 3], ..row.clone() };
    let head = ["%", "OSSN", "BCOP", "KW"].map(Head::from).to_vec();
    Table { head, rows: vec![row, other], note: "12 epochs <b>".into() }
}

#[test]
fn markdown_has_a_column_for_the_groups() {
    assert_eq!(
        table().markdown(),
        "|  | % | OSSN | BCOP | KW |\n| --- | --- | --- | --- | --- |\n\
         | MNIST, 1 seed | clean | 97.50 ± 0.71 (97.54 ± 0.06, −0.04) | **98.00** | (88.12) |\n\
         |  | certified |  |  |  |\n\n12 epochs <b>\n"
    );
}

#[test]
fn plain_text_has_a_line_for_each_group_and_a_star_for_the_best() {
    let text = table().terminal();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[1], "MNIST, 1 seed");
    assert!(lines[2].starts_with("  clean") && lines[2].ends_with("98.00*  (88.12)"), "{text}");
    assert_eq!(lines[3..], ["  certified", "12 epochs <b>"]);
}

#[test]
fn html_escapes_and_marks_the_best() {
    let page = table().html().into_string();
    assert!(page.contains("<p class=\"fine\">12 epochs &lt;b&gt;</p>"));
    assert_eq!(page.matches("<strong>").count(), 1);
    assert!(page.contains("<strong>98.00</strong>") && page.contains("<i>−0.04</i>"));
    assert_eq!(page.matches("rowgroup").count(), 1);
}

#[test]
fn a_single_number_is_not_the_best_of_a_row() {
    let mut row = table().rows.remove(1);
    row.mark_best(&[None, Some(1.0), None]);
    assert!(row.cells.iter().all(|cell| !cell.best));
}
