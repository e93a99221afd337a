//! Changes of files: by chance, and as someone makes them who knows the format.
//!
//! Definition. A change works on bytes (bits, numbers of 1 to 8 bytes, pieces that are cut, doubled or moved), or on what the file is
//! made of: the content of a gzip stream, the headers of a tar archive, the chunks of a PNG, the header of a safetensors file
//! and the JSON within it, the words, numbers and groups of a text. Checksums and lengths around the change are then made
//! to fit, most of the time, so that the reader goes on past them.

use std::io::{Read, Write};

use flate2::read::{GzDecoder, ZlibDecoder};
use flate2::write::{GzEncoder, ZlibEncoder};
use flate2::{Compression, Crc};
use rand::Rng;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;

/// What a reader may compare, add to or allocate by.
const NUMBERS: [u64; 18] = [
    0,
    1,
    2,
    3,
    7,
    8,
    127,
    255,
    256,
    4095,
    65_535,
    1 << 24,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    1 << 53,
    0x7fff_ffff_ffff_ffff,
    u64::MAX,
];
/// The same in texts, with what is hardly a number.
const WORDS: [&str; 22] = [
    "0",
    "-1",
    "1",
    "2",
    "3",
    "255",
    "65536",
    "2147483648",
    "4294967296",
    "9007199254740993",
    "9223372036854775807",
    "18446744073709551615",
    "18446744073709551616",
    "1e308",
    "1e999",
    "-0.0",
    "1e-320",
    "0.5",
    "nan",
    "null",
    "true",
    "[]",
];
const TEXTS: [&str; 14] = [
    r#""""#,
    r#""a""#,
    r#""../../x""#,
    r#""/etc/passwd""#,
    r#""\u0000""#,
    r#""\u001b[2J""#,
    r#""\ud800""#,
    r#""mnist""#,
    r#""images:.""#,
    r#""idx:""#,
    r#""1/0""#,
    r#""-1/-2""#,
    r#""1e308/1e-308""#,
    r#""kw-small""#,
];
/// Longer files are cut.
const LONGEST: usize = 1 << 20;

/// The bytes of a file, changed in one place or a few.
pub(crate) fn changed(bytes: &[u8], rng: &mut ChaCha8Rng) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let n = *[1, 1, 1, 2, 3, 8].choose(rng).expect("a choice");
    for _ in 0..n {
        bytes = once(&bytes, rng);
        bytes.truncate(LONGEST);
    }
    bytes
}

fn once(bytes: &[u8], rng: &mut ChaCha8Rng) -> Vec<u8> {
    if rng.random_ratio(1, 5) {
        return raw(bytes, rng);
    }
    if bytes.starts_with(&[0x1f, 0x8b]) {
        let mut inner = Vec::new();
        // a stream that is damaged already is changed as it is
        if GzDecoder::new(bytes).take(LONGEST as u64).read_to_end(&mut inner).is_ok() {
            let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
            packed.write_all(&once(&inner, rng)).expect("a Vec takes everything");
            return packed.finish().expect("a Vec takes everything");
        }
        return raw(bytes, rng);
    }
    if bytes.starts_with(b"\x89PNG\r\n\x1a\n") {
        return png(bytes, rng);
    }
    if bytes.get(257..262) == Some(b"ustar") {
        return tar(bytes, rng);
    }
    if bytes.get(8) == Some(&b'{') {
        return safetensors(bytes, rng);
    }
    match std::str::from_utf8(bytes) {
        Ok(text) if text.len() > 8 && !text.contains('\0') => words(text, rng).into_bytes(),
        _ => raw(bytes, rng),
    }
}

/// A place, more often near the beginning, where headers are.
fn place(n: usize, rng: &mut ChaCha8Rng) -> usize {
    let most = if rng.random() { n.min(64) } else { n };
    rng.random_range(0..=most)
}

fn raw(bytes: &[u8], rng: &mut ChaCha8Rng) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let at = place(bytes.len(), rng);
    let end = (at + place(bytes.len(), rng).max(1)).min(bytes.len());
    match rng.random_range(0..9) {
        0 if at < bytes.len() => bytes[at] ^= 1 << rng.random_range(0..8),
        1 if at < bytes.len() => bytes[at] = rng.random(),
        2 => drop(bytes.drain(at..end)),
        3 => {
            let piece = bytes[at..end].to_vec();
            let to = place(bytes.len(), rng);
            bytes.splice(to..to, piece);
        }
        4 => {
            let piece: Vec<u8> = (0..rng.random_range(1..17)).map(|_| rng.random()).collect();
            bytes.splice(at..at, piece);
        }
        5 => bytes.truncate(at),
        6 => bytes[at..end].fill(*[0, 0xff, b' ', b'9'].choose(rng).expect("a choice")),
        _ => {
            let number = NUMBERS
                .choose(rng)
                .expect("a choice")
                .wrapping_add(rng.random_range(0..3))
                .wrapping_sub(1);
            let n = 1 << rng.random_range(0..4);
            let mut digits = number.to_be_bytes()[8 - n..].to_vec();
            if rng.random() {
                digits.reverse();
            }
            let end = (at + n).min(bytes.len());
            bytes.splice(at..end, digits);
        }
    }
    bytes
}

/// One chunk in another state or place.
fn png(bytes: &[u8], rng: &mut ChaCha8Rng) -> Vec<u8> {
    let mut chunks: Vec<Vec<u8>> = Vec::new();
    let mut rest = bytes.get(8..).unwrap_or_default();
    while let Some(length) = rest.first_chunk().map(|l| u32::from_be_bytes(*l) as usize) {
        let Some(body) = rest.get(4..8 + length) else { break };
        chunks.push(body.to_vec());
        rest = rest.get(12 + length..).unwrap_or_default();
    }
    if chunks.is_empty() {
        return raw(bytes, rng);
    }
    let at = rng.random_range(0..chunks.len());
    match rng.random_range(0..6) {
        0 => drop(chunks.remove(at)),
        1 => chunks.insert(rng.random_range(0..=chunks.len()), chunks[at].clone()),
        2 => {
            // the samples themselves
            let mut samples = Vec::new();
            if chunks[at].starts_with(b"IDAT")
                && ZlibDecoder::new(&chunks[at][4..]).read_to_end(&mut samples).is_ok()
            {
                let mut packed = ZlibEncoder::new(b"IDAT".to_vec(), Compression::fast());
                packed.write_all(&raw(&samples, rng)).expect("a Vec takes everything");
                chunks[at] = packed.finish().expect("a Vec takes everything");
            }
        }
        _ => {
            let body = raw(&chunks[at][4..], rng);
            chunks[at].truncate(4);
            chunks[at].extend(body);
        }
    }
    let mut file = bytes[..8].to_vec();
    for chunk in chunks {
        let mut crc = Crc::new();
        crc.update(&chunk);
        file.extend((chunk.len().saturating_sub(4) as u32).to_be_bytes());
        file.extend(&chunk);
        file.extend(crc.sum().to_be_bytes());
    }
    file
}

/// One field of one header, or a block of 512 bytes.
fn tar(bytes: &[u8], rng: &mut ChaCha8Rng) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let n_blocks = bytes.len() / 512;
    let headers: Vec<usize> = (0..n_blocks)
        .map(|i| 512 * i)
        .filter(|&at| &bytes[at + 257..at + 262] == b"ustar")
        .collect();
    let Some(&at) = headers.choose(rng) else { return raw(&bytes, rng) };
    match rng.random_range(0..8) {
        0 => drop(bytes.drain(at..at + 512)),
        1 => {
            let block = bytes[at..at + 512].to_vec();
            let to = 512 * rng.random_range(0..=n_blocks);
            bytes.splice(to..to, block);
        }
        2 => {
            let to = 512 * rng.random_range(0..n_blocks);
            let block = raw(&bytes[to..to + 512], rng);
            bytes.splice(to..to + 512, block);
        }
        field => {
            let (start, length) =
                [(0, 100), (124, 12), (156, 1), (386, 126), (345, 155)][field - 3];
            let field = &mut bytes[at + start..at + start + length];
            match rng.random_range(0..4) {
                0 => field.iter_mut().for_each(|byte| *byte = rng.random()),
                1 => field[0] = *b"SLgxK1025\x80\xff".choose(rng).expect("a choice"),
                2 => field.fill(b'7'),
                _ => {
                    let mut other = raw(field, rng);
                    other.resize(length, 0);
                    field.copy_from_slice(&other);
                }
            }
        }
    }
    if let Some(header) = bytes.get_mut(at..at + 512).filter(|_| rng.random_ratio(7, 8)) {
        header[148..156].fill(b' ');
        let sum: u32 = header.iter().map(|&byte| u32::from(byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
    bytes
}

/// The header, the JSON text within it, or a number among the weights.
fn safetensors(bytes: &[u8], rng: &mut ChaCha8Rng) -> Vec<u8> {
    let length = bytes.first_chunk().map_or(u64::MAX, |l| u64::from_le_bytes(*l));
    let end = usize::try_from(length).ok().and_then(|length| length.checked_add(8));
    let Some((header, data)) = end.and_then(|end| Some((bytes.get(8..end)?, bytes.get(end..)?)))
    else {
        return raw(bytes, rng);
    };
    let mut data = data.to_vec();
    let mut header = String::from_utf8_lossy(header).into_owned();
    match rng.random_range(0..8) {
        0 => data = raw(&data, rng),
        1 => {
            let values =
                [f32::NAN, f32::INFINITY, f32::MAX, -f32::MAX, f32::MIN_POSITIVE, 1e-45, 0.0, -0.0];
            let value = values.choose(rng).expect("a choice").to_le_bytes();
            let n = rng.random_range(0..data.len() / 4 + 1);
            for (at, _) in (0..data.len() / 4).map(|i| 4 * i).zip(0..n) {
                data[at..at + 4].copy_from_slice(&value);
            }
        }
        2 | 3 => header = words(&header, rng),
        _ => {
            // a text that is JSON itself
            let before = header.find("\"{").map_or(0, |start| start);
            let text =
                serde_json::Deserializer::from_str(&header[before..]).into_iter::<String>().next();
            if let Some(Ok(text)) = text {
                let quoted = serde_json::to_string(&text).expect("a text has a JSON form");
                let other =
                    serde_json::to_string(&words(&text, rng)).expect("a text has a JSON form");
                header = header.replacen(&quoted, &other, 1);
            }
        }
    }
    let fits = rng.random_ratio(15, 16);
    let length = if fits { header.len() as u64 } else { *NUMBERS.choose(rng).expect("a choice") };
    [&length.to_le_bytes()[..], header.as_bytes(), &data].concat()
}

/// Words, numbers, quoted texts, blanks and single signs.
fn tokens(text: &str) -> Vec<&str> {
    let kind = |c: char| match c {
        c if c.is_alphanumeric() || "_.+-".contains(c) => 0,
        c if c.is_whitespace() && c != '\n' => 1,
        _ => 2,
    };
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let end = if first == '"' {
            let mut escaped = false;
            let closing = rest.char_indices().skip(1).find(|&(_, c)| {
                let closes = c == '"' && !escaped;
                escaped = c == '\\' && !escaped;
                closes
            });
            closing.map_or(rest.len(), |(at, _)| at + 1)
        } else {
            let same = |&(_, c): &(usize, char)| kind(c) == kind(first) && kind(first) != 2;
            rest.char_indices().skip(1).find(|c| !same(c)).map_or(rest.len(), |(at, _)| at)
        };
        let (token, after) = rest.split_at(end);
        tokens.push(token);
        rest = after;
    }
    tokens
}

/// The end of the group, text or line that begins with a token.
fn group(tokens: &[&str], start: usize) -> usize {
    let mut depth = 0;
    for (i, token) in tokens.iter().enumerate().skip(start) {
        match *token {
            "{" | "[" => depth += 1,
            "}" | "]" => depth -= 1,
            _ => {}
        }
        if depth <= 0
            && (tokens[start] == "{" || tokens[start] == "[" || matches!(*token, "," | "\n"))
        {
            return i + 1;
        }
    }
    tokens.len()
}

fn words(text: &str, rng: &mut ChaCha8Rng) -> String {
    let mut tokens = tokens(text);
    let says: Vec<usize> = (0..tokens.len()).filter(|&i| !tokens[i].trim().is_empty()).collect();
    let (Some(&at), Some(&other)) = (says.choose(rng), says.choose(rng)) else {
        return text.to_owned();
    };
    let end = group(&tokens, at);
    match rng.random_range(0..10) {
        0 => drop(tokens.remove(at)),
        1 => tokens.swap(at, other),
        2 => drop(tokens.drain(at..end)),
        3 | 4 => {
            // a member, an element or a line that stands twice
            let piece = tokens[at..end].to_vec();
            let to = if rng.random() { at } else { other };
            tokens.splice(to..to, piece);
        }
        5 => {
            let deep = ["[", "{\"a\":", "{"].choose(rng).expect("a choice");
            let n = *[1, 100, 2000].choose(rng).expect("a choice");
            tokens.splice(at..at, std::iter::repeat_n(*deep, n));
        }
        6 => tokens[at] = tokens[other],
        7 => tokens[at] = TEXTS.choose(rng).expect("a choice"),
        _ => {
            let is_number =
                |i: &usize| tokens[*i].starts_with(|c: char| c.is_ascii_digit() || c == '-');
            let numbers: Vec<usize> = says.iter().copied().filter(is_number).collect();
            let at = numbers.choose(rng).copied().unwrap_or(at);
            tokens[at] = WORDS.choose(rng).expect("a choice");
        }
    }
    tokens.concat()
}
