//! A service over HTTP: class, margin and certified radius of a picture, from a network that is loaded once.
//!
//! ```text
//! cargo run --release --example serve -- runs/first/network.safetensors            # http://127.0.0.1:8080
//! curl --data-binary @digit.png http://127.0.0.1:8080/predict
//! {"class":7,"margin":1.9126436,"radius":1.3522887}
//! ```
//!
//! `GET /` describes the network. `POST /predict` takes a picture of any kind that `lipconv predict` reads, and scales it to the network's
//! input. Mistakes of a client are status 400 with one line that says what was expected.
//!
//! `--load SECONDS` asks the service from `--clients` connections, compares every answer with the predictor's own and prints requests a
//! second and latencies.

#![allow(missing_docs, reason = "an example")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use certify::{Arithmetic, Prediction, Predictor};
use clap::Parser;
use lipconv_datasets::{decode_bytes, resized_image};
use serde_json::json;
use tiny_http::{Header, Method, Request, Response, Server};

/// Class and certified radius of pictures, over HTTP
#[derive(Debug, Parser)]
struct Args {
    /// A file of weights, as `lipconv train` and `lipconv import` write it
    network: PathBuf,
    /// Where to listen
    #[arg(long, default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// Threads that answer
    #[arg(long, default_value_t = 4)]
    threads: usize,
    /// Ask the service for so many seconds, and end
    #[arg(long, value_name = "SECONDS")]
    load: Option<f64>,
    /// Connections that ask
    #[arg(long, default_value_t = 4)]
    clients: usize,
}

/// Bytes of a picture, at most.
const LARGEST_BODY: u64 = 64 << 20;

fn main() -> Result<()> {
    let args = Args::parse();
    let predictor = Predictor::load(&args.network, None)?;
    let listen =
        if args.load.is_some() { SocketAddr::from(([127, 0, 0, 1], 0)) } else { args.listen };
    let server =
        Server::http(listen).map_err(|e| anyhow::anyhow!("cannot listen on {listen}: {e}"))?;
    let address = server.server_addr().to_ip().context("no address of the internet protocol")?;
    let threads = args.threads.max(1);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| serve(&server, &predictor));
        }
        let Some(seconds) = args.load else {
            println!("listening on http://{address}");
            return Ok(());
        };
        let outcome = load(address, &predictor, Duration::from_secs_f64(seconds), args.clients);
        (0..threads).for_each(|_| server.unblock());
        println!("{}", outcome?);
        Ok(())
    })
}

/// Answers until the server is told to stop.
fn serve(server: &Server, predictor: &Predictor) {
    while let Ok(mut request) = server.recv() {
        let (status, body) = match answer(&mut request, predictor) {
            Ok(body) => (200, body),
            Err((status, reason)) => (status, json!({ "error": reason }).to_string()),
        };
        let header =
            Header::from_bytes("Content-Type", "application/json").expect("a valid header");
        // a client that is gone needs no answer
        let _ = request
            .respond(Response::from_string(body).with_status_code(status).with_header(header));
    }
}

fn answer(request: &mut Request, predictor: &Predictor) -> Result<String, (u16, String)> {
    match (request.method(), request.url()) {
        (Method::Get, "/") => Ok(describe(predictor)),
        (Method::Post, "/predict") => {
            let mut body = Vec::new();
            let read = request.as_reader().take(LARGEST_BODY + 1).read_to_end(&mut body);
            read.map_err(|e| (400, e.to_string()))?;
            if body.len() as u64 > LARGEST_BODY {
                return Err((413, format!("the body has more than {LARGEST_BODY} bytes")));
            }
            let prediction = predict(predictor, &body).map_err(|e| (400, e.to_string()))?;
            Ok(serde_json::to_string(&prediction).expect("numbers have a JSON form"))
        }
        (_, "/" | "/predict") => Err((405, "expected GET / or POST /predict".into())),
        (_, other) => Err((404, format!("{other} is not here, expected / or /predict"))),
    }
}

fn describe(predictor: &Predictor) -> String {
    let input = predictor.input();
    json!({
        "input": [input.channels, input.height, input.width],
        "classes": predictor.n_classes(),
        "arithmetic": predictor.arithmetic().name(),
        "lipschitz": predictor.certifier().bounds().lipschitz(),
    })
    .to_string()
}

/// The prediction for a picture that is brought to the network's input.
fn predict(predictor: &Predictor, bytes: &[u8]) -> Result<Prediction> {
    let input = predictor.input();
    let picture = decode_bytes(Path::new("body"), bytes)?;
    let [_, h, w] = picture.shape;
    let pixels = picture.with_channels(input.channels)?;
    let pixels = resized_image(&pixels, [input.channels, h, w], input.height, input.width)?;
    let pixels: Vec<f32> = pixels.iter().map(|&pixel| f32::from(pixel) / 255.0).collect();
    Ok(predictor.predict(&pixels)?)
}

/// What a load test saw.
#[derive(Debug)]
struct Load {
    clients: usize,
    seconds: f64,
    arithmetic: Arithmetic,
    /// In ascending order.
    milliseconds: Vec<f64>,
}

impl std::fmt::Display for Load {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let n = self.milliseconds.len();
        let at = |share: f64| self.milliseconds[((n - 1) as f64 * share) as usize];
        write!(
            f,
            "{n} answers to {} connections, all as the predictor's own ({}): {:.0} a second, median {:.2} ms, 99 % within {:.2} ms",
            self.clients,
            self.arithmetic.name(),
            n as f64 / self.seconds,
            at(0.5),
            at(0.99),
        )
    }
}

/// Asks from several connections for some time.
fn load(
    address: SocketAddr,
    predictor: &Predictor,
    time: Duration,
    clients: usize,
) -> Result<Load> {
    let input = predictor.input();
    let shape = [input.channels, input.height, input.width];
    let start = Instant::now();
    let client = |client: usize| -> Result<Vec<f64>> {
        let mut connection = BufReader::new(TcpStream::connect(address)?);
        let mut times = Vec::new();
        while times.is_empty() || start.elapsed() < time {
            let seed = client + clients * times.len();
            let pixels: Vec<u8> =
                (0..input.n_values()).map(|i| (i * 31 + seed * 7919) as u8).collect();
            let png = lipconv_datasets::png(shape, &pixels)?;
            let asked = Instant::now();
            let (status, body) = ask(&mut connection, "POST /predict", &png)?;
            times.push(asked.elapsed().as_secs_f64() * 1e3);
            ensure!(status == 200, "status {status}: {body}");
            let answer: Prediction = serde_json::from_str(&body)?;
            let own = predict(predictor, &png)?;
            ensure!(answer == own, "the service says {answer:?}, the predictor {own:?}");
        }
        Ok(times)
    };
    let mut milliseconds = std::thread::scope(|scope| {
        let asking: Vec<_> = (0..clients.max(1)).map(|i| scope.spawn(move || client(i))).collect();
        let all = asking.into_iter().map(|thread| thread.join().expect("a client does not panic"));
        all.collect::<Result<Vec<_>>>().map(|times| times.concat())
    })?;
    milliseconds.sort_by(f64::total_cmp);
    let (seconds, arithmetic) = (start.elapsed().as_secs_f64(), predictor.arithmetic());
    Ok(Load { clients: clients.max(1), seconds, arithmetic, milliseconds })
}

/// One request on a connection that stays open: status and body.
fn ask(connection: &mut BufReader<TcpStream>, line: &str, body: &[u8]) -> Result<(u16, String)> {
    let head = format!("{line} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", body.len());
    connection.get_mut().write_all(&[head.as_bytes(), body].concat())?;
    let (mut status, mut length) = (0, 0);
    loop {
        let mut line = String::new();
        ensure!(connection.read_line(&mut line)? > 0, "the connection was closed");
        if let Some(rest) = line.strip_prefix("HTTP/1.1 ") {
            status = rest.get(..3).unwrap_or_default().parse()?;
        } else if let Some((_, value)) = line.to_lowercase().split_once("content-length:") {
            length = value.trim().parse()?;
        } else if line.trim().is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    connection.read_exact(&mut body)?;
    Ok((status, String::from_utf8(body)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device};
    use lipconv::{ImageShape, Methods, Network, NetworkSpec};

    #[test]
    fn every_answer_is_the_predictors_and_mistakes_are_the_clients() {
        let spec = NetworkSpec::small(ImageShape::new(3, 16, 16), 5, Methods::BCOP);
        let network = Network::new(&spec, DType::F32, &Device::Cpu, 0).unwrap();
        let network = network.materialize().unwrap();
        let predictor = Predictor::new(&network, Arithmetic::F32).unwrap();
        let server = Server::http("127.0.0.1:0").unwrap();
        let address = server.server_addr().to_ip().unwrap();
        std::thread::scope(|scope| {
            (0..2).for_each(|_| drop(scope.spawn(|| serve(&server, &predictor))));
            let outcome = load(address, &predictor, Duration::from_millis(300), 2);
            let mut connection = BufReader::new(TcpStream::connect(address).unwrap());
            let answers: Vec<_> = [
                ("GET /", &b""[..]),
                ("GET /predict", b""),
                ("POST /other", b""),
                ("POST /predict", b"no picture"),
                ("POST /predict", b""),
            ]
            .into_iter()
            .map(|(line, body)| ask(&mut connection, line, body))
            .collect();
            drop(connection);
            (0..2).for_each(|_| server.unblock());
            let outcome = outcome.unwrap();
            assert!(outcome.milliseconds.len() >= 2, "{outcome}");
            let statuses: Vec<u16> = answers.iter().map(|a| a.as_ref().unwrap().0).collect();
            assert_eq!(statuses, [200, 405, 404, 400, 400]);
            assert!(answers[0].as_ref().unwrap().1.contains("\"input\":[3,16,16]"));
            let refused = &answers[3].as_ref().unwrap().1;
            assert!(refused.contains("body: not an image, expected PNG"), "{refused}");
        });
    }
}
