//! Standard output whose reader may go away.
//!
//! Definition: `lipconv … | head` closes the pipe after a few lines, and the standard macros panic at the next one. What is
//! printed here is then discarded, and the command goes on to its end: the files that it writes do not depend on who
//! reads along.
//!
//! Errors: any other failure, such as a full disk under a redirection, ends the process with status 1 and one line.

use std::fmt;
use std::io::{self, ErrorKind, Write};

/// Writes to standard output, as `print!` does.
pub(crate) fn write(text: fmt::Arguments<'_>) {
    let mut stdout = io::stdout();
    if let Err(error) = stdout.write_fmt(text).and_then(|()| stdout.flush())
        && error.kind() != ErrorKind::BrokenPipe
    {
        eprintln!("error: cannot write to standard output: {error}");
        std::process::exit(1);
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

pub(crate) use {out, outln};
