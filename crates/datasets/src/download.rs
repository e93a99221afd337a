//! Downloads that resume and are checked.
//!
//! Definition: a file is fetched into `NAME.part`, from the byte where an earlier attempt stopped (HTTP Range), its SHA-256 is
//! compared with the manifest's, and only then does it get its name. Mirrors are tried in order.
//!
//! Guarantee: a file without `.part` in its name is complete and has the published hash. A server that ignores Range is read
//! from the start. A file with the wrong hash is removed. Two processes that want the same file wait for each other.
//!
//! Cost: the file once over the network and once through SHA-256. Without a network, a few seconds: the timeouts are short,
//! and no further mirror is tried once [`DownloadOptions::patience`] has passed without a byte.
//!
//! Errors: [`Error::Transfer`], [`Error::WrongHash`], [`Error::DownloadFailed`] when several mirrors
//! failed, [`Error::Write`].

#![expect(
    clippy::disallowed_types,
    reason = "how long a server has been silent decides which one is asked, never what is read"
)]

use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use lipconv::output::open_own;
use ureq::http::{Response, StatusCode, header};
use ureq::{Agent, Body};

use crate::error::{Error, Result};
use crate::manifest::{Manifest, ManifestFile, sha256_file};

/// Connections to one mirror for one file, each of which must bring new bytes.
const MAX_CONNECTIONS: usize = 20;

/// How long to wait for a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DownloadOptions {
    /// Longest wait for name resolution and for a connection, each.
    pub connect_timeout: Duration,
    /// Longest wait for the head of an answer, and for each further piece of it.
    pub read_timeout: Duration,
    /// After this time without a byte from anywhere, no further mirror is tried.
    pub patience: Duration,
    /// Whether the proxy variables of the environment are obeyed.
    pub use_proxy: bool,
}

impl Default for DownloadOptions {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(3),
            read_timeout: Duration::from_secs(10),
            patience: Duration::from_secs(4),
            use_proxy: true,
        }
    }
}

/// How far a download has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DownloadProgress<'a> {
    /// Name of the file.
    pub file: &'a str,
    /// Bytes on disk, those of earlier attempts included.
    pub received: u64,
    /// Bytes in all.
    pub total: u64,
}

/// Fetches every file of a manifest into `dir`; files that are there with the published hash are not fetched again.
/// The first file that no mirror delivers ends it.
pub fn download_all(
    manifest: &Manifest,
    dir: &Path,
    options: &DownloadOptions,
    observe: &mut dyn FnMut(DownloadProgress<'_>),
) -> Result<()> {
    let write_error = Error::write(dir);
    fs::create_dir_all(dir).map_err(write_error)?;
    let lock = open_own(&dir.join(".lock")).map_err(write_error)?;
    lock.lock().map_err(write_error)?;
    for file in &manifest.files {
        download_file(file, &manifest.mirrors, dir, options, observe)?;
    }
    Ok(())
}

/// Fetches one file into `dir`, which must exist, and returns its path.
pub fn download_file(
    file: &ManifestFile,
    mirrors: &[String],
    dir: &Path,
    options: &DownloadOptions,
    observe: &mut dyn FnMut(DownloadProgress<'_>),
) -> Result<PathBuf> {
    let target = dir.join(&file.name);
    if target.is_file() && sha256_file(&target)? == file.sha256 {
        return Ok(target);
    }
    let agent = agent(options);
    let start = Instant::now();
    let mut errors = Vec::new();
    for mirror in mirrors {
        let mut transfer =
            Transfer { agent: &agent, url: format!("{mirror}{}", file.name), file, dir, observe };
        match transfer.run() {
            Ok(()) => return Ok(target),
            Err(error @ Error::Write { .. }) => return Err(error),
            Err(error) => errors.push(error),
        }
        if start.elapsed() > options.patience && part_len(&part_path(dir, file)) == 0 {
            break;
        }
    }
    if errors.len() == 1 {
        return Err(errors.remove(0));
    }
    let reasons = errors.iter().map(ToString::to_string).collect();
    Err(Error::DownloadFailed { file: file.name.clone(), reasons })
}

fn agent(options: &DownloadOptions) -> Agent {
    let mut config = Agent::config_builder()
        .http_status_as_error(false)
        .timeout_resolve(Some(options.connect_timeout))
        .timeout_connect(Some(options.connect_timeout))
        .timeout_recv_response(Some(options.read_timeout))
        .timeout_per_read(Some(options.read_timeout))
        .user_agent(concat!("lipconv/", env!("CARGO_PKG_VERSION")));
    if !options.use_proxy {
        config = config.proxy(None);
    }
    config.build().new_agent()
}

fn part_path(dir: &Path, file: &ManifestFile) -> PathBuf {
    dir.join(format!("{}.part", file.name))
}

fn part_len(part: &Path) -> u64 {
    fs::metadata(part).map_or(0, |metadata| metadata.len())
}

/// One file from one mirror.
struct Transfer<'a> {
    agent: &'a Agent,
    url: String,
    file: &'a ManifestFile,
    dir: &'a Path,
    observe: &'a mut dyn FnMut(DownloadProgress<'_>),
}

impl Transfer<'_> {
    /// Connects until the file is complete, as long as each connection brings new bytes; then checks and renames it.
    fn run(&mut self) -> Result<()> {
        let part = part_path(self.dir, self.file);
        for _ in 0..MAX_CONNECTIONS {
            let before = part_len(&part);
            match self.connect(&part) {
                Ok(()) => return self.accept(&part),
                Err(Error::Transfer { .. }) if part_len(&part) > before => {}
                Err(error) => return Err(error),
            }
        }
        Err(self.failed(format!("still incomplete after {MAX_CONNECTIONS} connections")))
    }

    /// One connection: from the end of what is there to the end of the file.
    fn connect(&mut self, part: &Path) -> Result<()> {
        let mut offset = part_len(part);
        if offset == self.file.size {
            return Ok(());
        }
        if offset > self.file.size {
            self.remove(part)?;
            offset = 0;
        }
        let mut response = self.request(offset)?;
        if response.status() == StatusCode::RANGE_NOT_SATISFIABLE {
            self.remove(part)?;
            offset = 0;
            response = self.request(0)?;
        }
        match response.status() {
            StatusCode::OK => offset = 0,
            StatusCode::PARTIAL_CONTENT if range_start(&response) == Some(offset) => {}
            StatusCode::PARTIAL_CONTENT => {
                self.remove(part)?;
                return Err(
                    self.failed(format!("the answer does not start at byte {offset} as requested"))
                );
            }
            status => {
                let status = status.as_u16();
                return Err(self.failed(format!("HTTP status {status}, expected 200 or 206")));
            }
        }
        self.receive(part, offset, response.into_body())
    }

    fn request(&self, offset: u64) -> Result<Response<Body>> {
        // identity: the published files are gzipped themselves, and ranges count bytes as stored
        let mut request = self.agent.get(&self.url).header(header::ACCEPT_ENCODING, "identity");
        if offset > 0 {
            request = request.header(header::RANGE, format!("bytes={offset}-"));
        }
        request.call().map_err(|e| self.failed(e.to_string()))
    }

    fn receive(&mut self, part: &Path, offset: u64, body: Body) -> Result<()> {
        let write_error = Error::write(part);
        let mut out = open_own(part).map_err(write_error)?;
        out.set_len(offset).map_err(write_error)?;
        let mut received = offset;
        let mut reader = body.into_reader();
        let mut block = vec![0; 1 << 16];
        loop {
            let n = reader.read(&mut block).map_err(|e| self.failed(e.to_string()))?;
            if n == 0 {
                break;
            }
            received += n as u64;
            if received > self.file.size {
                self.remove(part)?;
                return Err(
                    self.failed(format!("the answer is longer than {} bytes", self.file.size))
                );
            }
            out.write_all(&block[..n]).map_err(write_error)?;
            (self.observe)(DownloadProgress {
                file: &self.file.name,
                received,
                total: self.file.size,
            });
        }
        if received < self.file.size {
            return Err(self.failed(format!(
                "the connection ended after {received} of {} bytes",
                self.file.size
            )));
        }
        out.sync_all().map_err(write_error)
    }

    fn accept(&self, part: &Path) -> Result<()> {
        let got = sha256_file(part)?;
        if got != self.file.sha256 {
            self.remove(part)?;
            return Err(Error::WrongHash {
                file: self.file.name.clone(),
                got,
                expected: self.file.sha256.clone(),
                url: self.url.clone(),
            });
        }
        let target = self.dir.join(&self.file.name);
        fs::rename(part, &target).map_err(|source| Error::Write { path: target, source })
    }

    fn remove(&self, part: &Path) -> Result<()> {
        fs::remove_file(part).map_err(|source| Error::Write { path: part.to_owned(), source })
    }

    fn failed(&self, reason: String) -> Error {
        Error::Transfer { url: self.url.clone(), reason }
    }
}

/// First byte of a partial answer, from `Content-Range: bytes START-END/TOTAL`.
fn range_start(response: &Response<Body>) -> Option<u64> {
    let value = response.headers().get(header::CONTENT_RANGE)?.to_str().ok()?;
    value.strip_prefix("bytes ")?.split('-').next()?.trim().parse().ok()
}
