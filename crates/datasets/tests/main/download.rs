//! Downloads from a server on 127.0.0.1 that misbehaves as told.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use lipconv_datasets::{
    DownloadOptions, Error, Manifest, ManifestFile, download_all, download_file, hex,
};
use sha2::{Digest, Sha256};

/// How the server treats one connection.
#[derive(Debug, Clone, Copy)]
enum Behaviour {
    /// Answers as HTTP says, ranges included.
    Proper,
    /// Promises everything, closes the connection after so many bytes.
    CutAfter(usize),
    /// Sends the whole file whatever range was asked for.
    IgnoresRange,
    /// Sends a partial answer from the first byte, whatever was asked for.
    WrongRange,
    /// Answers with this status and no content.
    Status(u16),
    /// Accepts, then says nothing until the client hangs up.
    Silent,
}

pub(crate) struct Server {
    pub(crate) mirror: String,
    /// Start of the range of each request, `None` where the whole file was asked for.
    requests: Arc<Mutex<Vec<Option<usize>>>>,
}

impl Server {
    /// Serves `content` under every path; connection i is treated by `behaviours[i]`, later ones by the last.
    fn start(content: Vec<u8>, behaviours: &[Behaviour]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mirror = format!("http://{}/data/", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (log, behaviours) = (Arc::clone(&requests), behaviours.to_vec());
        thread::spawn(move || {
            for (i, stream) in listener.incoming().enumerate() {
                let behaviour = behaviours[i.min(behaviours.len() - 1)];
                answer(stream.unwrap(), &content, behaviour, &log);
            }
        });
        Self { mirror, requests }
    }

    fn requests(&self) -> Vec<Option<usize>> {
        self.requests.lock().unwrap().clone()
    }
}

fn answer(
    mut stream: TcpStream,
    content: &[u8],
    behaviour: Behaviour,
    log: &Mutex<Vec<Option<usize>>>,
) {
    let mut start = None;
    for line in BufReader::new(stream.try_clone().unwrap()).lines() {
        let line = line.unwrap_or_default().to_lowercase();
        if let Some(range) = line.strip_prefix("range: bytes=") {
            start = range.trim_end_matches('-').parse().ok();
        }
        if line.is_empty() {
            break;
        }
    }
    log.lock().unwrap().push(start);
    // a client that hangs up early is part of the game, hence the ignored write errors
    let mut send = |head: &str, body: &[u8]| {
        let _ =
            stream.write_all(format!("HTTP/1.1 {head}\r\nConnection: close\r\n\r\n").as_bytes());
        let _ = stream.write_all(body);
    };
    let n = content.len();
    let whole = format!("200 OK\r\nContent-Length: {n}");
    match (behaviour, start) {
        (Behaviour::Status(status), _) => send(&format!("{status} Nope\r\nContent-Length: 0"), &[]),
        (Behaviour::Silent, _) => {
            let _ = stream.read(&mut [0]);
        }
        (Behaviour::CutAfter(len), None) => send(&whole, &content[..len]),
        (Behaviour::WrongRange, Some(_)) => {
            send(
                &format!(
                    "206 Partial\r\nContent-Range: bytes 0-{}/{n}\r\nContent-Length: {n}",
                    n - 1
                ),
                content,
            );
        }
        (Behaviour::Proper | Behaviour::CutAfter(_), Some(start)) if start < n => {
            let len = if let Behaviour::CutAfter(len) = behaviour {
                len.min(n - start)
            } else {
                n - start
            };
            let range = format!(
                "Content-Range: bytes {start}-{}/{n}\r\nContent-Length: {}",
                n - 1,
                n - start
            );
            send(&format!("206 Partial\r\n{range}"), &content[start..start + len]);
        }
        (Behaviour::Proper, Some(_)) => send("416 Range Not Satisfiable\r\nContent-Length: 0", &[]),
        _ => send(&whole, content),
    }
}

/// SHA-256 in hexadecimal digits.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn content() -> Vec<u8> {
    (0..300_000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

fn file_of(content: &[u8]) -> ManifestFile {
    ManifestFile {
        role: "archive".into(),
        name: "toy.bin".into(),
        size: content.len() as u64,
        sha256: sha256(content),
    }
}

pub(crate) fn options() -> DownloadOptions {
    DownloadOptions {
        connect_timeout: Duration::from_secs(2),
        read_timeout: Duration::from_millis(700),
        patience: Duration::from_secs(2),
        use_proxy: false,
    }
}

fn fetch(file: &ManifestFile, mirrors: &[&Server], dir: &Path) -> lipconv_datasets::Result<()> {
    let mirrors: Vec<String> = mirrors.iter().map(|server| server.mirror.clone()).collect();
    download_file(file, &mirrors, dir, &options(), &mut |_| {})
        .map(|path| assert_eq!(path, dir.join(&file.name)))
}

#[track_caller]
fn check_complete(dir: &Path, content: &[u8]) {
    assert!(fs::read(dir.join("toy.bin")).unwrap() == content);
    assert!(!dir.join("toy.bin.part").exists());
}

#[test]
fn a_file_arrives_whole_and_is_not_fetched_twice() {
    let (content, dir) = (content(), tempfile::tempdir().unwrap());
    let (file, server) = (file_of(&content), Server::start(content.clone(), &[Behaviour::Proper]));
    let mut seen = Vec::new();
    let mirrors = [server.mirror.clone()];
    download_file(&file, &mirrors, dir.path(), &options(), &mut |p| {
        seen.push((p.received, p.total))
    })
    .unwrap();
    check_complete(dir.path(), &content);
    assert!(seen.is_sorted() && seen.last() == Some(&(300_000, 300_000)), "{seen:?}");
    fetch(&file, &[&server], dir.path()).unwrap();
    assert_eq!(server.requests(), [None]);
}

#[test]
fn a_cut_connection_is_resumed_where_it_stopped() {
    let (content, dir) = (content(), tempfile::tempdir().unwrap());
    let behaviours = [Behaviour::CutAfter(100_000), Behaviour::CutAfter(50_000), Behaviour::Proper];
    let server = Server::start(content.clone(), &behaviours);
    fetch(&file_of(&content), &[&server], dir.path()).unwrap();
    check_complete(dir.path(), &content);
    assert_eq!(server.requests(), [None, Some(100_000), Some(150_000)]);
}

#[test]
fn a_part_of_an_earlier_run_is_used() {
    let (content, dir) = (content(), tempfile::tempdir().unwrap());
    fs::write(dir.path().join("toy.bin.part"), &content[..123_456]).unwrap();
    let server = Server::start(content.clone(), &[Behaviour::Proper]);
    fetch(&file_of(&content), &[&server], dir.path()).unwrap();
    check_complete(dir.path(), &content);
    assert_eq!(server.requests(), [Some(123_456)]);
}

#[test]
fn a_complete_part_needs_no_server() {
    let (content, dir) = (content(), tempfile::tempdir().unwrap());
    fs::write(dir.path().join("toy.bin.part"), &content).unwrap();
    let server = Server::start(content.clone(), &[Behaviour::Status(500)]);
    fetch(&file_of(&content), &[&server], dir.path()).unwrap();
    check_complete(dir.path(), &content);
    assert!(server.requests().is_empty());
}

#[test]
fn a_part_longer_than_the_file_is_thrown_away() {
    let (content, dir) = (content(), tempfile::tempdir().unwrap());
    fs::write(dir.path().join("toy.bin.part"), vec![1; 300_001]).unwrap();
    let server = Server::start(content.clone(), &[Behaviour::Proper]);
    fetch(&file_of(&content), &[&server], dir.path()).unwrap();
    check_complete(dir.path(), &content);
    assert_eq!(server.requests(), [None]);
}

#[test]
fn a_server_without_ranges_is_read_from_the_start() {
    let (content, dir) = (content(), tempfile::tempdir().unwrap());
    fs::write(dir.path().join("toy.bin.part"), &content[..200_000]).unwrap();
    let server = Server::start(content.clone(), &[Behaviour::IgnoresRange]);
    fetch(&file_of(&content), &[&server], dir.path()).unwrap();
    check_complete(dir.path(), &content);
    assert_eq!(server.requests(), [Some(200_000)]);
}

#[test]
fn an_answer_from_the_wrong_byte_is_not_pasted_in() {
    let (content, dir) = (content(), tempfile::tempdir().unwrap());
    fs::write(dir.path().join("toy.bin.part"), &content[..200_000]).unwrap();
    let server = Server::start(content.clone(), &[Behaviour::WrongRange]);
    let error = fetch(&file_of(&content), &[&server], dir.path()).unwrap_err();
    assert!(
        error.to_string().ends_with("the answer does not start at byte 200000 as requested"),
        "{error}"
    );
    assert!(!dir.path().join("toy.bin").exists());
}

#[test]
fn a_range_the_server_refuses_starts_over() {
    // the server's file is shorter than the part that is there, so the range is unsatisfiable; the file read
    // from the start is then too short as well
    let (content, dir) = (content(), tempfile::tempdir().unwrap());
    fs::write(dir.path().join("toy.bin.part"), &content[..200_000]).unwrap();
    let server = Server::start(content[..100_000].to_vec(), &[Behaviour::Proper]);
    let error = fetch(&file_of(&content), &[&server], dir.path()).unwrap_err();
    assert!(
        error.to_string().ends_with("the connection ended after 100000 of 300000 bytes"),
        "{error}"
    );
    assert_eq!(server.requests()[..2], [Some(200_000), None]);
    assert!(!dir.path().join("toy.bin").exists());
}

#[test]
fn a_wrong_hash_names_both_and_leaves_nothing() {
    let (content, dir) = (content(), tempfile::tempdir().unwrap());
    let mut other = content.clone();
    other[150_000] ^= 1;
    let server = Server::start(other.clone(), &[Behaviour::Proper]);
    let error = fetch(&file_of(&content), &[&server], dir.path()).unwrap_err();
    assert!(matches!(error, Error::WrongHash { .. }));
    let expected = format!(
        "toy.bin: SHA-256 is {}, expected {} (from {}toy.bin)",
        sha256(&other),
        sha256(&content),
        server.mirror
    );
    assert_eq!(error.to_string(), expected);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn a_file_longer_than_the_manifest_says_is_refused() {
    let (content, dir) = (content(), tempfile::tempdir().unwrap());
    let server = Server::start([content.clone(), vec![0]].concat(), &[Behaviour::Proper]);
    let error = fetch(&file_of(&content), &[&server], dir.path()).unwrap_err();
    assert!(error.to_string().ends_with("the answer is longer than 300000 bytes"), "{error}");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn a_missing_file_is_an_error_and_another_mirror_is_tried() {
    let (content, dir) = (content(), tempfile::tempdir().unwrap());
    let missing = Server::start(Vec::new(), &[Behaviour::Status(404)]);
    let error = fetch(&file_of(&content), &[&missing], dir.path()).unwrap_err();
    assert!(matches!(error, Error::Transfer { .. }));
    assert_eq!(
        error.to_string(),
        format!("{}toy.bin: HTTP status 404, expected 200 or 206", missing.mirror)
    );
    let broken = Server::start(Vec::new(), &[Behaviour::Status(503)]);
    let error = fetch(&file_of(&content), &[&missing, &broken], dir.path()).unwrap_err();
    assert!(matches!(&error, Error::DownloadFailed { reasons, .. } if reasons.len() == 2));
    assert!(
        error.to_string().starts_with("toy.bin could not be downloaded: http://127.0.0.1:"),
        "{error}"
    );
    let good = Server::start(content.clone(), &[Behaviour::Proper]);
    fetch(&file_of(&content), &[&missing, &good], dir.path()).unwrap();
    check_complete(dir.path(), &content);
}

#[test]
fn a_server_that_says_nothing_is_given_up() {
    let (content, dir) = (content(), tempfile::tempdir().unwrap());
    let server = Server::start(content.clone(), &[Behaviour::Silent]);
    // the server holds the line for as long as it is listened to
    let error = fetch(&file_of(&content), &[&server], dir.path()).unwrap_err();
    assert!(matches!(error, Error::Transfer { .. }), "{error}");
    assert!(error.to_string().contains("timeout"), "{error}");
}

#[test]
fn nobody_listening_is_an_error_that_names_the_address() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let (content, dir) = (content(), tempfile::tempdir().unwrap());
    let mirror = format!("http://127.0.0.1:{port}/");
    let error = download_file(
        &file_of(&content),
        std::slice::from_ref(&mirror),
        dir.path(),
        &options(),
        &mut |_| {},
    )
    .unwrap_err();
    assert!(error.to_string().starts_with(&format!("{mirror}toy.bin: ")), "{error}");
}

#[test]
fn all_files_of_a_manifest_arrive_and_the_first_failure_ends_it() {
    let (content, dir) = (content(), tempfile::tempdir().unwrap());
    let server = Server::start(content.clone(), &[Behaviour::Proper]);
    let mut manifest = Manifest::mnist().unwrap();
    manifest.mirrors = vec![server.mirror.clone()];
    manifest.files =
        ["a", "b"].map(|name| ManifestFile { name: name.into(), ..file_of(&content) }).to_vec();
    let target = dir.path().join("made/on/the/way");
    download_all(&manifest, &target, &options(), &mut |_| {}).unwrap();
    assert!(
        fs::read(target.join("a")).unwrap() == content
            && fs::read(target.join("b")).unwrap() == content
    );
    manifest.mirrors = vec![Server::start(content.clone(), &[Behaviour::Status(404)]).mirror];
    let elsewhere = dir.path().join("elsewhere");
    assert!(download_all(&manifest, &elsewhere, &options(), &mut |_| {}).is_err());
    assert!(!elsewhere.join("b").exists());
}

/// A server that behaves, for the tests of other modules.
pub(crate) fn proper_server(content: Vec<u8>) -> Server {
    Server::start(content, &[Behaviour::Proper])
}
