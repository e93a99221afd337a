//! Gzip as `gunzip` reads it.
//!
//! Definition: a file is one member after another; zeros may follow the last one. Anything else after a member is an error, as is a
//! member that is cut off or whose checksum is wrong.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Error, ErrorKind, Read};
use std::path::Path;

use flate2::bufread::GzDecoder;

/// The content of a file: decompressed where it begins as gzip does, whatever the file is called.
#[derive(Debug)]
pub(super) enum Content {
    Raw(BufReader<File>),
    Gzipped(Gunzip<BufReader<File>>),
}

impl Content {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let mut file = BufReader::with_capacity(1 << 16, File::open(path)?);
        // gzip's first two bytes; no format that is read here begins with them
        let gzipped = file.fill_buf()?.starts_with(&[0x1f, 0x8b]);
        Ok(if gzipped { Self::Gzipped(Gunzip::new(file)) } else { Self::Raw(file) })
    }
}

impl Read for Content {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Raw(file) => file.read(buffer),
            Self::Gzipped(file) => file.read(buffer),
        }
    }
}

/// Decompresses all members.
#[derive(Debug)]
pub(super) struct Gunzip<R> {
    /// The member that is being read; none after the last.
    member: Option<GzDecoder<R>>,
}

impl<R: BufRead> Gunzip<R> {
    pub(super) fn new(compressed: R) -> Self {
        Self { member: Some(GzDecoder::new(compressed)) }
    }
}

impl<R: BufRead> Read for Gunzip<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while let Some(member) = &mut self.member {
            let n = member.read(buffer)?;
            if n > 0 || buffer.is_empty() {
                return Ok(n);
            }
            let Some(member) = self.member.take() else { break };
            let mut rest = member.into_inner();
            match skip_zeros(&mut rest)? {
                None => {}
                Some(0x1f) => self.member = Some(GzDecoder::new(rest)),
                Some(_) => {
                    let text = "bytes follow the gzip stream that are neither gzip nor zero";
                    return Err(Error::new(ErrorKind::InvalidData, text));
                }
            }
        }
        Ok(0)
    }
}

/// The first byte that is not zero, which is left in place.
fn skip_zeros(rest: &mut impl BufRead) -> io::Result<Option<u8>> {
    loop {
        let buffer = rest.fill_buf()?;
        if buffer.is_empty() {
            return Ok(None);
        }
        match buffer.iter().position(|&byte| byte != 0) {
            Some(n) => {
                let byte = buffer[n];
                rest.consume(n);
                return Ok(Some(byte));
            }
            None => {
                let n = buffer.len();
                rest.consume(n);
            }
        }
    }
}
