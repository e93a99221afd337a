//! Output to a reader that may go away; control characters in foreign text are escaped.
//!
//! Definition: `lipconv … | head` closes the pipe after a few lines, and the standard macros panic at the next one. Here
//! further output is discarded, and the command goes on to its end, so that its files do not depend on the reader. Standard error may be closed or full at any time.
//!
//! Guarantee: control characters (but line ends and tabs) and those that turn the direction of text never reach a terminal or a log;
//! they are written as escapes. [`escaped`] escapes line ends as well: for names and texts that come from files.
//!
//! Errors: any other failure of standard output, such as a full disk under a redirection, ends the process with status 1 and
//! one line.

use std::borrow::Cow;
use std::fmt;
use std::io::{self, ErrorKind, Write};

/// Writes to standard output, as `print!` does.
pub(crate) fn write(text: fmt::Arguments<'_>) {
    let text = text.to_string();
    let mut stdout = io::stdout();
    if let Err(error) = stdout.write_all(harmless(&text).as_bytes()).and_then(|()| stdout.flush())
        && error.kind() != ErrorKind::BrokenPipe
    {
        errln!("error: cannot write to standard output: {error}");
        std::process::exit(1);
    }
}

/// Writes a line to standard error, where someone reads it.
pub(crate) fn write_error(text: fmt::Arguments<'_>) {
    let line = format!("{}\n", harmless(&text.to_string()));
    // nobody can be told that nobody listens
    let _ = io::stderr().write_all(line.as_bytes());
}

/// A line that a person should read; names in it may come from files.
pub(crate) fn note(text: &str) {
    errln!("note: {}", escaped(text));
}

fn is_harmful(c: char) -> bool {
    let turns =
        matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    c.is_control() || turns
}

fn without(text: &str, harmful: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.contains(&harmful) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if harmful(c) { out.extend(c.escape_default()) } else { out.push(c) }
    }
    Cow::Owned(out)
}

/// Text of several lines.
pub(crate) fn harmless(text: &str) -> Cow<'_, str> {
    without(text, |c| is_harmful(c) && !matches!(c, '\n' | '\t'))
}

/// A name or a text from a file, on one line.
pub(crate) fn escaped(text: &str) -> Cow<'_, str> {
    without(text, is_harmful)
}

/// A file to which lines are written, escaped.
#[derive(Debug)]
pub(crate) struct Log(pub(crate) std::fs::File);

impl Write for Log {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.0.write_all(harmless(&String::from_utf8_lossy(buffer)).as_bytes())?;
        Ok(buffer.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// As `print!`, for a reader that may go away.
macro_rules! out {
    ($($text:tt)*) => { $crate::stdout::write(format_args!($($text)*)) };
}

/// As `println!`, for a reader that may go away.
macro_rules! outln {
    ($($text:tt)*) => { $crate::stdout::write(format_args!("{}\n", format_args!($($text)*))) };
}

/// As `eprintln!`, for a standard error that may be closed or full.
macro_rules! errln {
    ($($text:tt)*) => { $crate::stdout::write_error(format_args!($($text)*)) };
}

pub(crate) use {errln, out, outln};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_moves_a_cursor_or_turns_text_is_escaped() {
        let cases = [
            ("plain – café ±", "plain – café ±"),
            ("a\u{1b}[2Kb\rc\u{7}", "a\\u{1b}[2Kb\\rc\\u{7}"),
            ("\u{9b}2K\u{202e}x\u{2066}", "\\u{9b}2K\\u{202e}x\\u{2066}"),
            ("\u{7f}\u{0}", "\\u{7f}\\u{0}"),
        ];
        for (text, expected) in cases {
            assert_eq!(harmless(text), expected);
            assert_eq!(escaped(text), expected);
        }
        assert_eq!(
            (harmless("a\tb\nc"), escaped("a\tb\nc")),
            ("a\tb\nc".into(), "a\\tb\\nc".into())
        );
    }
}
