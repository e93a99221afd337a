//! `lipconv completions` and `lipconv man`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Command;
use clap_complete::Shell;

use crate::files::write_atomic;
use crate::stdout::{out, outln};

/// Print the completions of a shell
///
/// The shell then completes commands, flags and the values of flags that have a list.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  lipconv completions bash > ~/.local/share/bash-completion/completions/lipconv
  lipconv completions zsh > ~/.zfunc/_lipconv
  lipconv completions fish > ~/.config/fish/completions/lipconv.fish")]
pub(super) struct Completions {
    #[arg(value_name = "SHELL", value_enum)]
    shell: Shell,
}

/// Write the manual: a page for the command, and one for each of its commands
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  lipconv man ~/.local/share/man/man1 && man lipconv-train")]
pub(super) struct Man {
    /// Folder of the pages, which is made where it is missing
    #[arg(value_name = "DIR")]
    dir: PathBuf,
}

pub(super) fn completions(args: &Completions, mut command: Command) -> Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, "lipconv", &mut script);
    out!("{}", String::from_utf8(script)?);
    Ok(ExitCode::SUCCESS)
}

pub(super) fn man(args: &Man, mut command: Command) -> Result<ExitCode> {
    // gives every command its whole name, as in lipconv-train
    command.build();
    let dir = &args.dir;
    std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let listed = command.get_subcommands().filter(|command| !command.is_hide_set());
    for command in std::iter::once(&command).chain(listed) {
        let page = clap_mangen::Man::new(command.clone());
        let (mut text, file) = (Vec::new(), dir.join(page.get_filename()));
        page.render(&mut text)?;
        write_atomic(&file, &text)?;
        outln!("{}", file.display());
    }
    Ok(ExitCode::SUCCESS)
}
