//! Peak memory: no small file asks for more than the largest honest input of its command.

use std::fs;
use std::io::Write as _;
use std::process::Stdio;
use std::time::Duration;

use flate2::write::{GzEncoder, ZlibEncoder};
use flate2::{Compression, Crc};
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::command::Place;
use crate::support::{gzip, idx, idx_images, idx_labels, write};

/// MiB of the largest honest input of each command, from docs/security.md.
const PREDICT: u64 = 849;
const CERTIFY: u64 = 197;
const VERIFY: u64 = 183;
const TRAIN: u64 = 179;

/// The most that is tolerated where a figure was measured: builds and allocators differ by a quarter, gigabytes by far more.
fn with_room(figure: u64) -> u64 {
    figure + figure / 4
}

/// Status, last line of complaint, and the most memory in use, in MiB.
fn peak(place: &Place, args: &[&str]) -> (Option<i32>, String, u64) {
    let complaints = place.path("complaints");
    let mut command = place.command(args);
    command.stdout(Stdio::null()).stderr(fs::File::create(&complaints).unwrap());
    let mut child = command.spawn().unwrap();
    let mut most = 0;
    loop {
        // the kernel's mark of high water: nothing falls between two looks but the last moment
        let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
        let mark = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = mark.and_then(|mark| mark.trim().trim_end_matches(" kB").parse::<u64>().ok());
        most = most.max(kib.unwrap_or(0) / 1024);
        if let Some(status) = child.try_wait().unwrap() {
            let text = String::from_utf8_lossy(&fs::read(&complaints).unwrap()).into_owned();
            let last = text.lines().last().unwrap_or_default().to_owned();
            return (status.code(), last, most);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn deflated(bytes: &[u8]) -> Vec<u8> {
    let mut packed = ZlibEncoder::new(Vec::new(), Compression::best());
    packed.write_all(bytes).unwrap();
    packed.finish().unwrap()
}

fn chunk(kind: &[u8; 4], body: &[u8]) -> Vec<u8> {
    let named = [kind, body].concat();
    let mut crc = Crc::new();
    crc.update(&named);
    [&(body.len() as u32).to_be_bytes()[..], &named, &crc.sum().to_be_bytes()].concat()
}

/// A PNG of the sizes in its header, with more chunks and with data of its own.
fn png(width: u32, height: u32, kind: u8, more: &[u8], data: &[u8]) -> Vec<u8> {
    let header = [&width.to_be_bytes()[..], &height.to_be_bytes(), &[8, kind, 0, 0, 0]].concat();
    let start = [b"\x89PNG\r\n\x1a\n".as_slice(), &chunk(b"IHDR", &header), more].concat();
    [start, chunk(b"IDAT", &deflated(data)), chunk(b"IEND", &[])].concat()
}

/// A TIFF of the sizes in its tags and with a profile of so many bytes.
fn tiff(width: u32, height: u32, samples: u32, profile: u32) -> Vec<u8> {
    let tag = |tag: u16, kind: u16, n: u32, value: u32| {
        let (tag, kind) = (tag.to_le_bytes(), kind.to_le_bytes());
        [&tag[..], &kind, &n.to_le_bytes(), &value.to_le_bytes()].concat()
    };
    let tags = [
        tag(256, 4, 1, width),
        tag(257, 4, 1, height),
        tag(258, 3, 1, 8),
        tag(259, 3, 1, 1),
        tag(262, 3, 1, 1),
        tag(273, 4, 1, 8),
        tag(277, 3, 1, samples),
        tag(278, 4, 1, height),
        tag(279, 4, 1, u32::MAX),
        tag(34_675, 7, profile, 8),
    ];
    [b"II*\0\x08\0\0\0\x0a\0".to_vec(), tags.concat(), vec![0; 64]].concat()
}

/// Pictures of a few bytes to a megabyte that speak of gigabytes.
fn pictures() -> Vec<(&'static str, Vec<u8>)> {
    let bomb = deflated(&vec![b'x'; 1 << 30]);
    let le = |n: u32| n.to_le_bytes();
    let bmp = |width: u32, height: u32, bits: u8| {
        let header = [&le(40)[..], &le(width), &le(height), &[1, 0, bits, 0], &[0; 24]].concat();
        [&b"BM"[..], &le(118), &[0; 4], &le(54), &header, &[0; 64]].concat()
    };
    let gif = |side: u16| {
        let (side, image) = (side.to_le_bytes(), b"\x2c\0\0\0\0");
        let screen = [&b"GIF89a"[..], &side, &side, &[0x80, 0, 0], &[0, 0, 0, 255, 255, 255]];
        [&screen.concat()[..], image, &side, &side, &[0, 2, 2, 0x44, 1, 0, 0x3b]].concat()
    };
    let riff = |body: &[u8]| [b"RIFF", &le(body.len() as u32 + 4)[..], b"WEBP", body].concat();
    let canvas = [0, 0, 0, 0, 0xff, 0x3f, 0, 0xff, 0x3f, 0];
    let jpeg = |side: u16| {
        let side = side.to_be_bytes();
        let frame = [&[0xff, 0xc2, 0, 17, 8][..], &side, &side, &[3, 1, 0x22, 0, 2, 0x11, 0, 3]];
        [&[0xff, 0xd8][..], &frame.concat(), &[0x11, 0, 0xff, 0xd9]].concat()
    };
    vec![
        ("wide.png", png(5_000_000, 1, 0, &[], &vec![0; 5_000_001])),
        ("large.png", png(16_384, 16_384, 6, &[], &[0; 1000])),
        ("colours.png", png(8, 8, 2, &chunk(b"iCCP", &[b"x\0\0", &bomb[..]].concat()), &[0; 200])),
        ("text.png", png(8, 8, 2, &chunk(b"zTXt", &[b"x\0\0", &bomb[..]].concat()), &[0; 200])),
        ("long.png", png(8, 8, 2, &[], &vec![0; 1 << 28])),
        ("wide.tif", tiff(1 << 31, 1, 1, 4)),
        ("large.tif", tiff(16_000, 16_000, 1, 4)),
        ("deep.tif", tiff(4, 4, 65_535, 4)),
        ("profile.tif", tiff(4, 4, 1, 1 << 28)),
        ("wide.bmp", bmp(0x7fff_ffff, 1, 24)),
        ("large.bmp", bmp(16_000, 16_000, 8)),
        ("large.gif", gif(u16::MAX)),
        ("allowed.gif", gif(10_000)),
        (
            "canvas.webp",
            riff(
                &[b"VP8X", &le(10)[..], &canvas, b"VP8L", &le(5), b"\x2f\xff\xff\xff\x0f\0"]
                    .concat(),
            ),
        ),
        ("large.webp", riff(&[b"VP8L", &le(6)[..], b"\x2f\xff\xff\xff\x0f\0"].concat())),
        ("large.jpg", jpeg(65_500)),
        ("allowed.jpg", jpeg(10_000)),
    ]
}

#[test]
fn pictures_ask_for_no_more_than_the_largest_honest_one() {
    let place = super::trained();
    for (name, bytes) in pictures() {
        fs::write(place.path(name), bytes).unwrap();
        let (status, said, most) = peak(&place, &["predict", "run", name]);
        println!("predict {name}: {most} MiB, {status:?} {said}");
        // what stands beside the pixels and after them is not looked at
        let harmless = ["colours.png", "text.png", "long.png"].contains(&name);
        assert!(status == Some(1) || harmless, "{name}: {status:?} {said}");
        assert!(most < with_room(PREDICT), "{name}: {most} MiB");
    }
}

/// A file of weights with a header of one's own.
fn weights(header: &str, length: u64, n: usize) -> Vec<u8> {
    [&length.to_le_bytes()[..], header.as_bytes(), &vec![0; n]].concat()
}

#[test]
fn weights_ask_for_no_more_than_honest_ones() {
    let place = super::trained();
    place.succeed(&["certify", "run", "--out", "c.json", "--test-limit", "2", "--quiet"]);
    let deep = "[".repeat(1 << 20);
    let layers = "{\\\"type\\\":\\\"relu\\\"},".repeat(1 << 20);
    let network = r#"{\"kind\":\"plain-network\",\"format\":1,\"dtype\":\"f32\",\"input\":{\"channels\":1,\"height\":28,\"width\":28},\"layers\":["#;
    let metadata =
        |layers: &str| format!(r#"{{"__metadata__":{{"lipconv":"{network}{layers}"}}}}"#);
    let tensor =
        json!({"a": {"dtype": "F32", "shape": [1_u64 << 40], "data_offsets": [0, 1_u64 << 42]}});
    let many: serde_json::Map<_, _> = (0..50_000)
        .map(|i| (format!("t{i}"), json!({"dtype": "F32", "shape": [0], "data_offsets": [0, 0]})))
        .collect();
    let files: Vec<(&str, String, u64)> = vec![
        ("endless", "{}".into(), u64::MAX),
        ("long", "{}".into(), 99_000_000),
        ("deep", deep.clone(), deep.len() as u64),
        ("huge", tensor.to_string(), tensor.to_string().len() as u64),
        ("layers", metadata(&layers), metadata(&layers).len() as u64),
        ("many", json!(many).to_string(), json!(many).to_string().len() as u64),
    ];
    let hash = |bytes: &[u8]| lipconv_datasets::hex(&Sha256::digest(bytes));
    let certificate = fs::read_to_string(place.path("c.json")).unwrap();
    let own = hash(&fs::read(place.path("run/network.safetensors")).unwrap());
    for (name, header, length) in files {
        let bytes = weights(&header, length, 64);
        fs::write(place.path("c.json"), certificate.replace(&own, &hash(&bytes))).unwrap();
        fs::write(place.path(name), bytes).unwrap();
        for (args, limit) in [
            (&["certify", name, "--dataset", "synthetic", "--out", "x.json"][..], CERTIFY),
            (&["verify", "c.json", "--model", name, "--dataset", "synthetic"], VERIFY),
            (&["inspect", name], CERTIFY),
        ] {
            let (status, said, most) = peak(&place, args);
            println!(
                "{args:?}: {most} MiB, {status:?} {}",
                said.chars().take(90).collect::<String>()
            );
            assert_eq!(status, Some(1), "{args:?}: {said}");
            assert!(most < with_room(limit), "{args:?}: {most} MiB");
        }
    }
}

#[test]
fn certificates_of_many_samples_ask_for_no_more_than_their_length() {
    let place = super::trained();
    place.succeed(&["certify", "run", "--out", "c.json", "--test-limit", "2", "--quiet"]);
    let honest = fs::read_to_string(place.path("c.json")).unwrap();
    let at = honest.find("\"samples\":[").unwrap() + 11;
    let (start, _) = honest.split_at(at);
    for (name, more) in [
        ("two million samples", "{\"a\":0},".repeat(2_000_000)),
        (
            "true samples",
            format!(
                "{{{}}},",
                r#""label":1,"prediction":1,"margin":0.1,"real":0.1,"executed":{"f32":0.1}"#
            )
            .repeat(200_000),
        ),
        ("deep", "[".repeat(1 << 20)),
        ("long text", format!("\"{}", "x".repeat(30_000_000))),
    ] {
        fs::write(place.path("lie.json"), format!("{start}{more}0]}}")).unwrap();
        let args = ["verify", "lie.json", "--model", "run"];
        let (status, said, most) = peak(&place, &args);
        let length = more.len() as u64 >> 20;
        println!(
            "verify, {name}: {most} MiB, {status:?} {}",
            said.chars().take(90).collect::<String>()
        );
        assert_eq!(status, Some(1), "{name}: {said}");
        // a file is held once
        assert!(most < with_room(VERIFY) + length, "{name}: {most} MiB");
    }
}

/// Zeros that a reader unpacks, 1 GiB in a megabyte.
fn bomb() -> Vec<u8> {
    let mut packed = GzEncoder::new(Vec::new(), Compression::best());
    let zeros = vec![0; 1 << 20];
    (0..1024).for_each(|_| packed.write_all(&zeros).unwrap());
    packed.finish().unwrap()
}

/// A tar header of an entry of so many bytes.
fn entry(name: &str, size: u64, kind: u8) -> Vec<u8> {
    let mut header = vec![0; 512];
    header[..name.len()].copy_from_slice(name.as_bytes());
    header[100..107].copy_from_slice(b"0000644");
    header[124] = 0x80;
    header[128..136].copy_from_slice(&size.to_be_bytes());
    header[156] = kind;
    header[257..265].copy_from_slice(b"ustar  \0");
    if kind == b'S' {
        header[386] = 0x80;
        header[390..398].copy_from_slice(&size.to_be_bytes());
        header.copy_within(124..136, 483);
    }
    header[148..156].fill(b' ');
    let sum: u32 = header.iter().map(|&byte| u32::from(byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    header
}

#[test]
fn archives_ask_for_no_more_than_an_honest_data_set() {
    let place = Place::new();
    let bomb = bomb();
    let cifar = |name: &str, bytes: &[u8]| {
        write(&place.path(&format!("{name}/cifar10")), "cifar-10-binary.tar.gz", bytes);
    };
    let batch = "cifar-10-batches-bin/data_batch_1.bin";
    cifar("bomb", &bomb);
    cifar("sparse", &gzip(&[entry(batch, 1 << 62, b'S'), vec![0; 1024]].concat()));
    cifar("long", &gzip(&[entry(batch, 1 << 62, b'0'), vec![0; 1024]].concat()));
    cifar("name", &[gzip(&entry("././@LongLink", 1 << 30, b'L')), bomb.clone()].concat());
    let extended = gzip(&entry("pax", 1 << 30, b'x'));
    cifar("extended", &[extended, bomb.clone()].concat());
    let mnist = |name: &str, images: &[u8]| {
        let dir = place.path(&format!("{name}/mnist"));
        write(&dir, "train-images-idx3-ubyte.gz", images);
        write(&dir, "train-labels-idx1-ubyte.gz", &gzip(&idx_labels(&[1; 10])));
        write(&dir, "t10k-images-idx3-ubyte.gz", &gzip(&idx_images(10, 28, 28)));
        write(&dir, "t10k-labels-idx1-ubyte.gz", &gzip(&idx_labels(&[1; 10])));
    };
    let header = |n: u32, h: u32, w: u32| gzip(&idx(&[0x0803, n, h, w], &[]));
    mnist("most", &[header(u32::MAX, u32::MAX, u32::MAX), bomb.clone()].concat());
    mnist("square", &[header(1, 32_768, 32_768), bomb.clone()].concat());
    mnist("count", &[header(1 << 20, 32, 32), bomb.clone()].concat());
    mnist("more", &[gzip(&idx_images(10, 28, 28)), bomb].concat());
    for (set, names) in [
        ("cifar10", &["bomb", "sparse", "long", "name", "extended"][..]),
        ("mnist", &["most", "square", "count", "more"]),
    ] {
        for name in names {
            let args = ["train", "--dataset", set, "--data-dir", name, "--epochs", "1"];
            let (status, said, most) = peak(&place, &[&args[..], &["--out", "run", "-q"]].concat());
            println!("train on {set}, {name}: {most} MiB, {status:?} {said}");
            assert_eq!(status, Some(1), "{name}: {said}");
            assert!(most < with_room(TRAIN), "{name}: {most} MiB");
        }
    }
}

#[test]
#[ignore = "takes minutes; wants MNIST in LIPCONV_DATA"]
fn the_largest_honest_inputs() {
    let Some(data) = std::env::var_os("LIPCONV_DATA") else { return };
    let data = data.into_string().unwrap();
    let place = Place::new();
    let report = |args: &[&str], limit: u64| {
        let (status, said, most) = peak(&place, args);
        println!("{most} MiB: lipconv {}", args.join(" ").replace(&data, "DATA"));
        assert_eq!(status, Some(0), "{args:?}: {said}");
        assert!(most <= with_room(limit), "{args:?}: {most} MiB");
    };
    report(&["train", "--data-dir", &data, "--epochs", "1", "--out", "run", "-q"], TRAIN);
    report(&["certify", "run", "--data-dir", &data, "--out", "c.json", "-q"], CERTIFY);
    let verify = ["verify", "c.json", "--model", "run", "--data-dir", &data];
    report(&[&verify[..], &["--samples", "300", "-q"]].concat(), VERIFY);
    let (width, height) = (12_000, 10_000);
    let rows = vec![0; height as usize * (4 * width as usize + 1)];
    fs::write(place.path("largest.png"), png(width, height, 6, &[], &rows)).unwrap();
    report(&["predict", "run", "largest.png"], PREDICT);
}
