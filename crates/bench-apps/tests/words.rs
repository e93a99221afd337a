//! Words and numbers of messages and tables.

use std::path::Path;

use bench_apps::words::{
    at_least, at_most, at_most_scientific, decimals, lipschitz_text, percent, shell_quoted,
    text_table,
};

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
fn bounds_stay_bounds_in_print() {
    assert_eq!((at_least(0.123_46, 4), at_most(0.123_44, 4)), ("0.1234".into(), "0.1235".into()));
    assert_eq!((at_least(0.25, 2), at_most(0.25, 2)), ("0.25".into(), "0.25".into()));
    assert_eq!((at_least(-0.001, 2), at_most(-0.001, 2)), ("-0.01".into(), "-0.00".into()));
    assert_eq!((at_least(0.999_96, 4), at_most(0.999_94, 4)), ("0.9999".into(), "1.0000".into()));
    assert_eq!((at_least(f64::INFINITY, 2), at_most(f64::NAN, 2)), ("inf".into(), "NaN".into()));
    assert_eq!(at_most_scientific(1.234e-6, 1), "1.3e-6");
    assert_eq!(at_most_scientific(9.96e-6, 1), "1.0e-5");
    assert_eq!(at_most_scientific(0.0, 1), "0.0e0");
    assert_eq!(at_most_scientific(-1.26e-6, 1), "-1.2e-6");
    let texts = [1.000_001_234, 1.199_361, 0.95, 1.0].map(lipschitz_text);
    assert_eq!(texts, ["1 + 1.24e-6", "1.19937", "0.95000", "1 + 0.00e0"]);
    let mut x = 1.0e-9;
    while x < 1e12 {
        for decimals in 0..9 {
            let read = |text: String| text.parse::<f64>().unwrap();
            assert!(read(at_least(x, decimals)) <= x && read(at_most(x, decimals)) >= x, "{x}");
            assert!(read(at_most_scientific(x, decimals)) >= x, "{x}");
        }
        x *= 1.37;
    }
}

#[test]
fn what_was_not_computed_is_blank() {
    assert_eq!(
        (percent(Some(97.126)), percent(None), percent(Some(f64::NAN))),
        ("97.13".into(), "".into(), "".into())
    );
}

#[test]
fn a_loss_that_runs_away_has_few_digits() {
    let texts = [0.0, -0.125, 3e8, 9e307, f64::INFINITY].map(decimals);
    assert_eq!(texts, ["0.0000", "-0.1250", "300000000.0000", "9.0000e307", "inf"]);
}

#[test]
fn a_path_in_a_command_is_quoted_where_a_shell_would_change_it() {
    let cases = [
        ("runs/a_b-1.5+x=y:z@%,", "runs/a_b-1.5+x=y:z@%,"),
        ("my run", "'my run'"),
        ("it's", r"'it'\''s'"),
        ("$HOME;`x`", "'$HOME;`x`'"),
        ("~/run", "'~/run'"),
        ("größe", "'größe'"),
        ("", "''"),
        ("-q", "./-q"),
        ("- q", "'./- q'"),
        ("a\nb\u{1b}'\\7", r"$'a\012b\033\'\\7'"),
        ("a\u{202e}b", r"$'a\342\200\256b'"),
    ];
    for (path, expected) in cases {
        assert_eq!(shell_quoted(Path::new(path)), expected);
    }
}

#[cfg(unix)]
#[test]
fn a_shell_reads_a_quoted_path_as_it_was() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt as _;

    let paths: [&[u8]; 6] =
        [b"plain/x", b"it's \"a\" $b", b"\xff7", b"\n\\n'", b"\x7f\t!", "\u{2066}é".as_bytes()];
    for path in paths {
        let quoted = shell_quoted(Path::new(OsStr::from_bytes(path)));
        let line = format!("printf %s {quoted}");
        let output = std::process::Command::new("bash").arg("-c").arg(line).output().unwrap();
        assert_eq!(output.stdout, path, "{quoted}");
    }
}
