//! A mutation fuzzer for every reader of files that others may have written.
//!
//!     cargo xtask fuzz --help
//!
//! Definition: a case is a small file that its reader accepts, changed in a few places ([`mutate`]), and read as the commands read
//! it ([`targets`]). A worker process reads one case after the other, from a folder in memory. The parent sees it die (panic, overflow
//! of the stack, more memory than [`MEMORY`]) or hang (longer than [`PATIENCE`] on one case), keeps the input and goes on with the
//! next case.
//!
//! Guarantee: a case follows from target, seed and number alone.
//!
//! Expected: a line for each target with the number of cases and no findings.

mod case;
mod memory;
mod mutate;
mod targets;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Parser;

use case::{Case, Files, seeds, write_seed};
use memory::Counting;
use targets::{TARGETS, Target};

#[global_allocator]
static ALLOCATOR: Counting = Counting::new();

/// Most bytes that a case may have in use.
const MEMORY: usize = 512 << 20;
/// Longest that a case may compute.
const PATIENCE: Duration = Duration::from_secs(5);
/// Longest that a case may wait; a busy machine makes a case wait too.
const STANDSTILL: Duration = Duration::from_secs(120);
/// After so many findings a target is left.
const MOST_FINDINGS: usize = 20;

#[derive(Debug, Parser)]
struct Cli {
    /// idx, cifar10, stl10, images, onnx, description, weights, checkpoint, gan, certificate, config, experiment, manifest, records [default: all]
    targets: Vec<String>,
    /// Minutes for each target
    #[arg(long, default_value_t = 1.0)]
    minutes: f64,
    /// Stop each target after N cases
    #[arg(long, default_value_t = u64::MAX, hide_default_value = true)]
    cases: u64,
    /// Seed of the changes
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Read this case alone, in this process
    #[arg(long)]
    case: Option<u64>,
    /// Where inputs of findings are kept
    #[arg(long, default_value = "target/fuzz")]
    keep: PathBuf,
    /// Folder of a worker
    #[arg(long, hide = true)]
    worker: Option<PathBuf>,
    /// First case of a worker
    #[arg(long, hide = true, default_value_t = 0)]
    from: u64,
}

fn main() -> Result<ExitCode> {
    let cli = Cli::parse();
    let mut chosen = Vec::new();
    for name in &cli.targets {
        let known = || TARGETS.map(|target| target.name).join(", ");
        let target = TARGETS.iter().find(|target| target.name == name);
        chosen.push(target.with_context(|| format!("no target {name}, expected {}", known()))?);
    }
    if chosen.is_empty() {
        chosen.extend(&TARGETS);
    }
    if let Some(dir) = &cli.worker {
        work(chosen[0], cli.seed, cli.from, u64::MAX, dir)?;
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(case) = cli.case {
        let dir = folder()?;
        for target in chosen {
            let tally = work(target, cli.seed, case, 1, dir.path())?;
            println!("{}, case {case}: {tally}", target.name);
        }
        return Ok(ExitCode::SUCCESS);
    }
    let mut n_findings = 0;
    for target in chosen {
        n_findings += fuzz(target, &cli)?;
    }
    Ok(if n_findings == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// How far a worker is.
#[derive(Debug, Clone, Copy, Default)]
struct Tally {
    /// The case that is read, or the next one.
    case: u64,
    accepted: u64,
    /// Most bytes in use by a case.
    peak: u64,
}

impl Tally {
    fn put(self, file: &File) -> std::io::Result<()> {
        let words = [self.case, self.accepted, self.peak].map(u64::to_le_bytes);
        #[cfg(unix)]
        return std::os::unix::fs::FileExt::write_all_at(file, words.as_flattened(), 0);
        #[cfg(not(unix))]
        return (&*file).write_all(words.as_flattened());
    }

    fn read(path: &Path) -> Self {
        let bytes = fs::read(path).unwrap_or_default();
        let mut words = bytes.as_chunks::<8>().0.iter().rev().map(|word| u64::from_le_bytes(*word));
        let mut word = || words.next().unwrap_or_default();
        let (peak, accepted, case) = (word(), word(), word());
        Self { case, accepted, peak }
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} accepted, at most {:.1} MiB",
            self.accepted,
            self.peak as f64 / f64::from(1 << 20)
        )
    }
}

/// Reads `n` cases from `from` on, in the folder `dir`.
fn work(target: &Target, seed: u64, from: u64, n: u64, dir: &Path) -> Result<Tally> {
    // the one thread of this process; a second one has them already
    let _ = rayon::ThreadPoolBuilder::new().num_threads(1).use_current_thread().build_global();
    projectors::gemm::single_threaded_blas();
    let (seeds, place) = (seeds(target)?, dir.join("case"));
    let state = File::create(dir.join("state"))?;
    let mut tally = Tally { case: from, ..Tally::default() };
    let mut present = None;
    let parent = parent();
    while tally.case < from.saturating_add(n) {
        let case = Case::new(&seeds, seed, tally.case);
        if present != Some(case.seed) && self::parent() != parent {
            // nobody watches any more
            break;
        }
        if present != Some(case.seed) {
            write_seed(&seeds[case.seed], &place)?;
            present = Some(case.seed);
        }
        case.apply(&place)?;
        tally.put(&state)?;
        ALLOCATOR.begin(MEMORY);
        let outcome = (target.read)(&place);
        let peak = ALLOCATOR.used();
        case.undo(&seeds, &place)?;
        tally.accepted += u64::from(outcome.is_ok());
        tally.peak = tally.peak.max(peak as u64);
        tally.case += 1;
    }
    Ok(tally)
}

/// A folder for cases: in memory where the system has such a place, since each case writes a few files.
fn folder() -> Result<tempfile::TempDir> {
    let mut builder = tempfile::Builder::new();
    let builder = builder.prefix("lipconv-fuzz-");
    Ok(builder.tempdir_in("/dev/shm").or_else(|_| builder.tempdir())?)
}

/// The process that started this one, where it can be known.
fn parent() -> u32 {
    #[cfg(unix)]
    return std::os::unix::process::parent_id();
    #[cfg(not(unix))]
    return 0;
}

/// Runs workers until the time is up; returns the number of findings.
fn fuzz(target: &Target, cli: &Cli) -> Result<usize> {
    let dir = folder()?;
    let start = Instant::now();
    let time = Duration::try_from_secs_f64(60.0 * cli.minutes).context("--minutes")?;
    let (mut done, mut findings) = (Tally::default(), 0);
    let mut next_line = start + Duration::from_secs(10);
    while start.elapsed() < time && done.case < cli.cases && findings < MOST_FINDINGS {
        let from = done.case;
        let state = dir.path().join("state");
        let _ = fs::remove_file(&state);
        let mut worker = Worker::start(target, cli.seed, from, dir.path())?;
        let mut last = (from, Instant::now(), Duration::ZERO);
        let before = done;
        let fault = loop {
            std::thread::sleep(Duration::from_millis(50));
            let now = Tally::read(&state);
            let computed = worker.computed();
            if now.case > last.0 {
                last = (now.case, Instant::now(), computed.unwrap_or_default());
            }
            done = Tally {
                case: last.0,
                accepted: before.accepted + now.accepted,
                peak: before.peak.max(now.peak),
            };
            if Instant::now() > next_line {
                next_line += Duration::from_secs(10);
                eprintln!("{}: {} cases, {done}", target.name, done.case);
            }
            if let Some(how) = worker.ended()? {
                break Some(how);
            }
            if start.elapsed() >= time || done.case >= cli.cases {
                break None;
            }
            let waited = last.1.elapsed();
            if waited > STANDSTILL || computed.map_or(waited, |all| all - last.2) > PATIENCE {
                break Some(format!("longer than {} s", PATIENCE.as_secs()));
            }
        };
        drop(worker);
        if let Some(fault) = fault {
            findings += 1;
            let kept = keep(target, cli, done.case)?;
            println!(
                "{}, seed {}, case {}: {fault}\n  kept in {}",
                target.name,
                cli.seed,
                done.case,
                kept.display()
            );
            done.case += 1;
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    let (name, n) = (target.name, done.case);
    println!("{name}: {n} cases in {seconds:.0} s, {done}, {findings} findings");
    Ok(findings)
}

/// Writes the input of a case where a person finds it.
fn keep(target: &Target, cli: &Cli, number: u64) -> Result<PathBuf> {
    let dir = cli.keep.join(format!("{}-{}-{number}", target.name, cli.seed));
    let seeds: Vec<Files> = seeds(target)?;
    let case = Case::new(&seeds, cli.seed, number);
    write_seed(&seeds[case.seed], &dir)?;
    case.apply(&dir)?;
    Ok(dir)
}

/// A process that reads cases; it ends with this value.
struct Worker {
    child: Child,
    complaints: PathBuf,
}

impl Worker {
    fn start(target: &Target, seed: u64, from: u64, dir: &Path) -> Result<Self> {
        let complaints = dir.join("complaints");
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(target.name).arg("--worker").arg(dir);
        command.args(["--seed", &seed.to_string(), "--from", &from.to_string()]);
        let child = command.stdin(Stdio::null()).stderr(File::create(&complaints)?).spawn()?;
        Ok(Self { child, complaints })
    }

    /// How long it has computed, where the system tells (Linux, in hundredths of a second).
    fn computed(&self) -> Option<Duration> {
        let text = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).ok()?;
        let (_, fields) = text.rsplit_once(')')?;
        let ticks = fields.split_whitespace().skip(11).take(2).map(str::parse::<u64>);
        let ticks: u64 = ticks.sum::<Result<_, _>>().ok()?;
        Some(Duration::from_millis(10 * ticks))
    }

    /// How it ended, where it did.
    fn ended(&mut self) -> Result<Option<String>> {
        let Some(status) = self.child.try_wait()? else { return Ok(None) };
        let text = String::from_utf8_lossy(&fs::read(&self.complaints)?).into_owned();
        if text.contains("No space left on device") {
            bail!("the folder of temporary files is full");
        }
        let lines: Vec<&str> =
            text.lines().filter(|line| !line.trim().is_empty()).take(3).collect();
        Ok(Some(format!("{status}: {}", lines.join(" | "))))
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    /// Says which case it was if its reader panics.
    struct Named<'a>(&'a str, u64);

    impl Drop for Named<'_> {
        fn drop(&mut self) {
            if std::thread::panicking() {
                let _ =
                    writeln!(std::io::stderr(), "cargo xtask fuzz {} --case {}", self.0, self.1);
            }
        }
    }

    #[test]
    fn seeds_are_accepted_and_changed_files_are_survived() {
        let dir = folder().unwrap();
        for target in &TARGETS {
            for files in seeds(target).unwrap() {
                let place = dir.path().join("seed");
                write_seed(&files, &place).unwrap();
                (target.read)(&place).unwrap_or_else(|e| panic!("{}: {e}", target.name));
            }
            let mut refused = 0;
            for case in 0..256 {
                let _named = Named(target.name, case);
                let tally = work(target, 1, case, 1, dir.path()).unwrap();
                assert!(tally.peak < MEMORY as u64);
                refused += 1 - tally.accepted;
            }
            assert!(refused > 64, "{}: hardly any change matters", target.name);
        }
    }

    #[test]
    fn a_case_follows_from_its_number() {
        let seeds = seeds(&TARGETS[0]).unwrap();
        let changed = |case| Case::new(&seeds, 0, case).changed;
        assert_eq!(changed(7), changed(7));
        assert_ne!(changed(7), changed(8));
    }
}
