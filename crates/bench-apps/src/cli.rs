//! The `lipconv` command: flags in, tables and files out.
//!
//! Results go to standard output, progress and errors to standard error. Exit status: 0, 1 after an error (one line), 2 for
//! flags that cannot be parsed, 130 after an interruption that saved.
//!
//! Not here: what the commands do ([`crate::experiment`]).

mod args;
mod attack;
mod audit;
mod bench;
mod certify;
mod eval;
mod experiment;
mod export;
mod gan;
mod import;
mod inspect;
mod model;
mod predict;
mod reproduce;
mod train;
mod verify;
mod wasserstein;

use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Arg, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use clap_complete::Shell;

use crate::files::write_atomic;
use crate::interrupt;
use crate::stdout::{errln, out, outln};

/// Provably 1-Lipschitz networks: train, certify, attack, inspect
///
/// The networks of Li et al. 2019 (arXiv 1911.00937) have orthogonal convolutions. Every prediction comes with a radius: no smaller
/// change of the image changes the prediction.
#[derive(Debug, Parser)]
#[command(
    name = "lipconv",
    version,
    after_help = "\
Examples:
  lipconv reproduce                                the paper's BCOP-Small on MNIST, with a report
  lipconv reproduce table1 --quick                 a table of the paper: table1 … table4, figure2, all
  lipconv train --out runs/first --epochs 3        train, in a folder of its own
  lipconv train --resume runs/first                go on after an interruption
  lipconv eval runs/first                          clean, certified and attacked accuracy
  lipconv certify runs/first --out FILE            radii that someone else can check
  lipconv verify FILE --model runs/first           check them
  lipconv attack runs/first --attack pgd --eps 1.58
  lipconv inspect runs/first                       layers, singular values, bounds
  lipconv export runs/first                        weights and module for PyTorch, or ONNX
  lipconv import model.onnx                        a network of another program
  lipconv audit model.onnx --claimed-constant 1    what is proved of it, beside what is claimed
  lipconv predict runs/first digit.png             class and certified radius of an image
  lipconv gan --out runs/gan                       a generator of images like CIFAR-10's
  lipconv wasserstein cifar10 generator:FILE       a lower bound of their distance from the data
  lipconv completions bash                         completions of a shell; lipconv man DIR writes the manual

Exit status: 0; 1 after an error (one line on standard error) or a failed check; 2 for invalid flags; \
130 after an interruption (the state is saved).

MNIST is read from --data-dir, LIPCONV_DATA or the cache, and downloaded otherwise. Where that
fails, the program draws digits in its place and labels them as synthetic."
)]
struct Cli {
    /// Worker threads (default: one for each core)
    #[arg(long, global = true, value_name = "N")]
    threads: Option<usize>,
    /// Show no progress
    #[arg(long, short, global = true)]
    quiet: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Train(Box<train::Args>),
    Eval(eval::Args),
    Reproduce(Box<reproduce::Args>),
    Certify(certify::Args),
    Verify(verify::Args),
    Audit(audit::Args),
    Attack(attack::Args),
    Inspect(inspect::Args),
    Predict(predict::Args),
    Bench(bench::Args),
    Export(export::Args),
    Import(import::Args),
    Gan(Box<gan::Args>),
    Wasserstein(Box<wasserstein::Args>),
    Experiment(experiment::Args),
    Completions(Completions),
    Man(Man),
}

/// Print the completions of a shell
///
/// The shell then completes commands, flags and the values of flags that have a list.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  lipconv completions bash > ~/.local/share/bash-completion/completions/lipconv
  lipconv completions zsh > ~/.zfunc/_lipconv
  lipconv completions fish > ~/.config/fish/completions/lipconv.fish")]
struct Completions {
    #[arg(value_name = "SHELL", value_enum)]
    shell: Shell,
}

/// Write the manual: one page for lipconv, and one for each of its commands
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  lipconv man ~/.local/share/man/man1 && man lipconv-train")]
struct Man {
    /// Folder of the pages, which is made where it is missing
    #[arg(value_name = "DIR")]
    dir: PathBuf,
}

/// Runs the command of the process's arguments.
pub fn main() -> ExitCode {
    match run(parse()) {
        Ok(status) => status,
        Err(error) => {
            errln!("error: {}", one_line(&error));
            tracing::error!("{}", one_line(&error));
            ExitCode::FAILURE
        }
    }
}

/// The command line. A negative number after a flag is its value, so that the flag's own message says what was expected.
fn parse() -> Cli {
    let numbers = |arg: Arg| match arg.get_action().takes_values() {
        true => arg.allow_negative_numbers(true),
        false => arg,
    };
    let command = Cli::command().mut_subcommands(|command| command.mut_args(numbers));
    let matches = command.try_get_matches().unwrap_or_else(|error| told(&error));
    Cli::from_arg_matches(&matches).unwrap_or_else(|error| told(&error))
}

/// Prints a help, a version or what is wrong with the flags, and ends the process.
fn told(error: &clap::Error) -> ! {
    let printed = error.print().and_then(|()| std::io::stdout().flush());
    match printed {
        Err(problem) if !error.use_stderr() && problem.kind() != ErrorKind::BrokenPipe => {
            errln!("error: cannot write to standard output: {problem}");
            std::process::exit(1);
        }
        _ => std::process::exit(error.exit_code()),
    }
}

fn run(cli: Cli) -> Result<ExitCode> {
    start_threads(cli.threads)?;
    interrupt::install()?;
    let display = if cli.quiet {
        crate::progress::Display::Silent
    } else {
        crate::progress::Display::detect()
    };
    match cli.command {
        Command::Train(args) => train::run(&args, display),
        Command::Eval(args) => eval::run(&args, display),
        Command::Reproduce(args) => reproduce::run(&args, display),
        Command::Certify(args) => certify::run(&args, display),
        Command::Verify(args) => verify::run(&args, display),
        Command::Audit(args) => audit::run(&args, display),
        Command::Attack(args) => attack::run(&args, display),
        Command::Inspect(args) => inspect::run(&args),
        Command::Predict(args) => predict::run(&args, display),
        Command::Bench(args) => bench::run(&args, display),
        Command::Export(args) => export::run(&args),
        Command::Import(args) => import::run(&args),
        Command::Gan(args) => gan::run(&args, display),
        Command::Wasserstein(args) => wasserstein::run(&args, display),
        Command::Experiment(args) => experiment::run(&args, display),
        Command::Completions(args) => completions(&args, Cli::command()),
        Command::Man(args) => man(&args, Cli::command()),
    }
}

/// Our threads, and as many of candle's.
fn start_threads(n: Option<usize>) -> Result<()> {
    if let Some(n) = n {
        anyhow::ensure!((1..=1024).contains(&n), "--threads is {n}, expected 1 to 1024");
    }
    tell_candle(n);
    if let Some(n) = n
        && let Err(error) = rayon::ThreadPoolBuilder::new().num_threads(n).build_global()
    {
        errln!("error: cannot start {n} threads: {error}");
        // the threads that did start wait for the others, and would be waited for
        signal_hook::low_level::exit(1);
    }
    projectors::gemm::single_threaded_blas();
    Ok(())
}

/// candle splits its work among as many threads as the machine has cores, whatever the processors that this process may run on and
/// whatever `--threads` says, unless this variable says otherwise. Its threads wait busily for each other: on one core of two
/// small operations took four times as long.
fn tell_candle(n: Option<usize>) {
    const VARIABLE: &str = "RAYON_NUM_THREADS";
    if n.is_none() && std::env::var_os(VARIABLE).is_some() {
        return;
    }
    let n = n.or_else(|| std::thread::available_parallelism().ok().map(usize::from));
    let Some(n) = n else { return };
    #[expect(
        unsafe_code,
        reason = "the first thread is the only one yet, and no other reads the environment"
    )]
    // SAFETY: `main` has started no thread before, so nothing reads the environment meanwhile.
    unsafe {
        std::env::set_var(VARIABLE, n.to_string());
    }
}

/// The error and its causes on one line, each cause once.
fn one_line(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        let cause = cause.to_string();
        if text.contains(&cause) {
            continue;
        }
        text = if text.is_empty() { cause } else { format!("{text}: {cause}") };
    }
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn completions(args: &Completions, mut command: clap::Command) -> Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, "lipconv", &mut script);
    out!("{}", String::from_utf8(script)?);
    Ok(ExitCode::SUCCESS)
}

fn man(args: &Man, command: clap::Command) -> Result<ExitCode> {
    // the pages are the help, and `help` has none
    let mut command = command.disable_help_subcommand(true);
    // gives every command its whole name, as in lipconv-experiment-run
    command.build();
    let dir = &args.dir;
    std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    write_pages(&command, dir)?;
    Ok(ExitCode::SUCCESS)
}

/// The page of a command, and those of the commands below it, which it refers to.
fn write_pages(command: &clap::Command, dir: &Path) -> Result<()> {
    let page = clap_mangen::Man::new(command.clone());
    let (mut text, file) = (Vec::new(), dir.join(page.get_filename()));
    page.render(&mut text)?;
    write_atomic(&file, &text)?;
    outln!("{}", file.display());
    let listed = command.get_subcommands().filter(|command| !command.is_hide_set());
    for command in listed {
        write_pages(command, dir)?;
    }
    Ok(())
}
