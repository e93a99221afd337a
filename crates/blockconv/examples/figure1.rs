//! Figure 1 of the paper: the 1-D orthogonal convolution [P  I-P] on a signal of 2 channels and length 3, as SVG.
//!
//! `cargo run -p blockconv --example figure1 [-- FILE]`, FILE defaulting to figure1.svg. Above the input: each v_i is a
//! vector of the plane and splits into P v_i, on the line of P, and (I-P) v_i, across it. Below the output: w_i = P v_i +
//! (I-P) v_{i-1} with cyclic boundaries. A right angle is put together from the same legs, so the sum of the squared
//! lengths is the same above and below; the program prints both norms.

use std::fmt::Write;

use blockconv::assembly::assemble_1d;
use ndarray::{Array2, ArrayView1, array};
use projectors::Projector;

const COLOURS: [&str; 3] = ["#0072b2", "#d55e00", "#009e73"];
/// Width of a cell, pixels per unit, height of a row.
const CELL: f64 = 230.0;
const UNIT: f64 = 62.0;
const ROW: f64 = 240.0;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let line = array![[2.0], [1.0]];
    let p = Projector::from_range(line.view())?;
    let signal = array![[1.0, 1.2], [-0.4, 1.1], [1.3, -0.6]];
    let kernel = assemble_1d(Array2::eye(2).view(), std::slice::from_ref(&p))?;
    let output = kernel.apply(signal.view())?;

    let path = std::env::args().nth(1).unwrap_or_else(|| "figure1.svg".into());
    std::fs::write(&path, draw(&p, &signal, &output)?)?;
    let norm = |a: &Array2<f64>| a.iter().map(|x| x * x).sum::<f64>().sqrt();
    println!(
        "norm of the input {:.12}, of the output {:.12}: {path}",
        norm(&signal),
        norm(&output)
    );
    Ok(())
}

fn draw(
    p: &Projector<f64>,
    signal: &Array2<f64>,
    output: &Array2<f64>,
) -> Result<String, std::fmt::Error> {
    let (width, height) = (3.0 * CELL, 2.0 * ROW + 20.0);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" font-size=\"15\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    let (along, across) = (p.matrix().to_owned(), p.complement().into_matrix());
    for i in 0..3 {
        let before = (i + 2) % 3;
        let own = along.dot(&signal.row(i));
        let mut cell = Cell { svg: &mut svg, x: CELL * (i as f64 + 0.5), y: 0.5 * ROW + 10.0 };
        cell.axes(p)?;
        cell.leg(own.view(), i, "")?;
        cell.leg(across.dot(&signal.row(i)).view(), i, " stroke-dasharray=\"5 4\"")?;
        cell.arrow(signal.row(i), COLOURS[i], &format!("v{}", i + 1))?;

        let mut cell = Cell { svg: &mut svg, x: CELL * (i as f64 + 0.5), y: 1.5 * ROW + 10.0 };
        cell.axes(p)?;
        cell.leg(own.view(), i, "")?;
        cell.leg(across.dot(&signal.row(before)).view(), before, " stroke-dasharray=\"5 4\"")?;
        let label = format!("w{0} = P v{0} + (I-P) v{1}", i + 1, before + 1);
        cell.arrow(output.row(i), "#222222", &label)?;
    }
    svg.push_str("</svg>\n");
    Ok(svg)
}

/// A small plane with its origin at (x, y), the second channel upwards.
struct Cell<'a> {
    svg: &'a mut String,
    x: f64,
    y: f64,
}

impl Cell<'_> {
    fn at(&self, v: ArrayView1<'_, f64>) -> (f64, f64) {
        (self.x + UNIT * v[0], self.y - UNIT * v[1])
    }

    fn line(&mut self, end: (f64, f64), style: &str) -> std::fmt::Result {
        let (x, y) = (self.x, self.y);
        writeln!(
            self.svg,
            "<line x1=\"{x:.2}\" y1=\"{y:.2}\" x2=\"{:.2}\" y2=\"{:.2}\" {style}/>",
            end.0, end.1
        )
    }

    /// The line of P and the line across it.
    fn axes(&mut self, p: &Projector<f64>) -> std::fmt::Result {
        let unit = p.matrix().column(0).to_owned() / p.matrix()[[0, 0]].sqrt();
        for (direction, name) in [(unit.clone(), "P"), (array![-unit[1], unit[0]], "I-P")] {
            for sign in [1.5, -1.5] {
                let end = self.at((&direction * sign).view());
                self.line(end, "stroke=\"#bbbbbb\" stroke-width=\"1\"")?;
            }
            let (x, y) = self.at((&direction * 1.55).view());
            writeln!(self.svg, "<text x=\"{x:.2}\" y=\"{y:.2}\" fill=\"#888888\">{name}</text>")?;
        }
        Ok(())
    }

    /// A component of v_source, in its colour.
    fn leg(&mut self, v: ArrayView1<'_, f64>, source: usize, dashes: &str) -> std::fmt::Result {
        let end = self.at(v);
        self.line(end, &format!("stroke=\"{}\" stroke-width=\"3\"{dashes}", COLOURS[source]))
    }

    fn arrow(&mut self, v: ArrayView1<'_, f64>, colour: &str, label: &str) -> std::fmt::Result {
        let (x, y) = self.at(v);
        self.line((x, y), &format!("stroke=\"{colour}\" stroke-width=\"2\""))?;
        let angle = f64::atan2(y - self.y, x - self.x).to_degrees();
        writeln!(
            self.svg,
            "<path d=\"M0,0 L-11,-5 L-11,5 Z\" fill=\"{colour}\" transform=\"translate({x:.2},{y:.2}) rotate({angle:.2})\"/>"
        )?;
        let (x, y) = (self.x - 0.45 * CELL, self.y + 0.46 * ROW);
        writeln!(self.svg, "<text x=\"{x:.2}\" y=\"{y:.2}\" fill=\"{colour}\">{label}</text>")
    }
}
