//! `lipconv inspect`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use candle_core::Tensor;
use lipconv::{PlainLayer, PlainNetwork, SignalShape};
use serde::Serialize;

use super::model::Model;
use crate::files::{check_output, write_json};
use crate::jobs::evidence::singular_values;
use crate::report::table::Table;
use crate::stdout::outln;
use crate::words::{at_most, at_most_scientific, lipschitz_text, shape_text};

/// Layers of a trained network: shapes, singular values, defects, bounds
///
/// Singular values are those of the whole linear map of a layer at the image size it sees, cyclic boundary included. The
/// defect is the largest distance of a singular value from 1. The bound is rigorous for the stored weights, rounding included.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  lipconv inspect runs/first
  lipconv inspect runs/first/network.safetensors
  lipconv inspect runs/first --json layers.json")]
pub(super) struct Args {
    /// A run directory, or a file of weights
    #[arg(value_name = "RUN")]
    model: PathBuf,
    /// Where to write the layers
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// What `--json` writes.
#[derive(Debug, Serialize)]
struct Report {
    /// Channels, height and width.
    input: [usize; 3],
    n_classes: usize,
    dtype: &'static str,
    /// Bounds of the constants of the network and of a difference of two logits.
    lipschitz_bound: f64,
    difference_bound: f64,
    layers: Vec<Layer>,
}

/// What is known about a layer.
#[derive(Debug, Serialize)]
struct Layer {
    name: String,
    /// The earlier signal that it takes or joins.
    from: Option<String>,
    output: Vec<usize>,
    weight: Option<Vec<usize>>,
    /// Values of weight and bias.
    n_values: usize,
    /// Smallest and largest, of layers of the kinds that are trained here.
    singular_values: Option<[f64; 2]>,
    /// Bound of its own constant, unless it joins signals.
    bound: Option<f64>,
    /// Bound of the constant of all up to its output.
    image_to_here: f64,
}

pub(super) fn run(args: &Args) -> Result<ExitCode> {
    let model = Model::load(&args.model, Some(crate::config::DeviceKind::Cpu))?;
    args.json.as_deref().map(check_output).transpose()?;
    let network = &model.network;
    let input = network.input();
    outln!(
        "{}: images {} x {} x {}, {} classes, {}",
        args.model.display(),
        input.channels,
        input.height,
        input.width,
        network.n_classes(),
        network.dtype().as_str()
    );
    if let Some(run) = &model.run {
        let history = run.metrics()?;
        let epochs = history.last().map_or(0, |row| row.epoch);
        outln!("trained for {epochs} of {} epochs", model.config.training.epochs);
    }
    let layers = layers(network)?;
    outln!("\n{}", table_of(network, &layers));
    outln!("{}", bound_line(network)?);
    if let Some(file) = &args.json {
        let report = Report {
            input: [input.channels, input.height, input.width],
            n_classes: network.n_classes(),
            dtype: network.dtype().as_str(),
            lipschitz_bound: network.lipschitz_bound()?.value(),
            difference_bound: difference_bound(network)?,
            layers,
        };
        write_json(file, &report)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Whether the layers are of the kinds that are trained here, one after the other.
fn is_own(network: &PlainNetwork) -> bool {
    let foreign = |layer: &PlainLayer| {
        matches!(layer, PlainLayer::PaddedConv(_) | PlainLayer::LeakyRelu { .. })
    };
    network.is_sequence() && !network.layers().iter().any(foreign)
}

/// The network's constant; far from 1, also that of the difference of two logits.
pub(super) fn bound_line(network: &PlainNetwork) -> Result<String> {
    let bound = network.lipschitz_bound()?.value();
    let line = format!("Lipschitz constant of the network: at most {}", lipschitz_text(bound));
    if is_own(network) && bound < 1.5 {
        return Ok(line);
    }
    let largest = at_most(difference_bound(network)?, 5);
    Ok(format!("{line}; of a difference of two logits: at most {largest}"))
}

/// The largest bound of the constant of a difference of two logits.
fn difference_bound(network: &PlainNetwork) -> Result<f64> {
    let certifier = certify::Certifier::new(network)?;
    let pairs = (0..network.n_classes()).flat_map(|t| (0..t).map(move |j| (t, j)));
    Ok(pairs.map(|(t, j)| certifier.difference_constant(t, j)).fold(0.0, f64::max))
}

/// What is known about each layer.
fn layers(network: &PlainNetwork) -> Result<Vec<Layer>> {
    let (own, signals) = (network.lipschitz_bounds()?, network.signal_bounds()?);
    let is_own = is_own(network);
    let layer = |(i, (layer, name)): (usize, (&PlainLayer, &String))| {
        let (input, output) = (network.shapes()[i], network.shapes()[i + 1]);
        let from = layer.earlier().map(|from| match from {
            0 => "image".to_owned(),
            from => network.names()[from - 1].clone(),
        });
        let weight = layer.parameters().map(|(weight, _)| weight.dims().to_vec());
        let n_values = layer
            .parameters()
            .map_or(0, |(weight, bias)| weight.elem_count() + bias.map_or(0, Tensor::elem_count));
        let singular_values = match layer.parameters() {
            Some((weight, _)) if is_own => {
                Some(extremes(weight, layer.output_shape(input, name)?).context(name.clone())?)
            }
            _ => None,
        };
        let bound = from.is_none().then(|| own[i].value());
        let (name, output, image_to_here) = (name.clone(), dims(output), signals[i + 1].value());
        Ok(Layer { name, from, output, weight, n_values, singular_values, bound, image_to_here })
    };
    network.layers().iter().zip(network.names()).enumerate().map(layer).collect()
}

/// The layers as a table for the terminal.
pub(super) fn table(network: &PlainNetwork) -> Result<String> {
    Ok(table_of(network, &layers(network)?))
}

fn table_of(network: &PlainNetwork, layers: &[Layer]) -> String {
    let table = match is_own(network) {
        true => Table::plain(&OWN, layers.iter().map(own_row).collect()),
        false => Table::plain(&FOREIGN, layers.iter().map(foreign_row).collect()),
    };
    table.terminal()
}

const OWN: [&str; 8] =
    ["layer", "output", "weight", "values", "sigma_min", "sigma_max", "defect", "bound - 1"];

fn own_row(layer: &Layer) -> Vec<String> {
    let mut row = vec![layer.name.clone(), shape_text(&layer.output)];
    if let (Some(weight), Some([min, max]), Some(bound)) =
        (&layer.weight, layer.singular_values, layer.bound)
    {
        row.extend([
            shape_text(weight),
            layer.n_values.to_string(),
            format!("{min:.7}"),
            format!("{max:.7}"),
            format!("{:.1e}", (1.0 - min).abs().max((max - 1.0).abs())),
            at_most_scientific(bound - 1.0, 1),
        ]);
    }
    row
}

/// Of a network of another program: how much each layer may stretch distances, and all layers up to it together.
const FOREIGN: [&str; 7] =
    ["layer", "from", "output", "weight", "values", "bound", "image to here"];

fn foreign_row(layer: &Layer) -> Vec<String> {
    let n_values = layer.weight.as_ref().map(|_| layer.n_values.to_string());
    vec![
        layer.name.clone(),
        layer.from.clone().unwrap_or_default(),
        shape_text(&layer.output),
        layer.weight.as_deref().map(shape_text).unwrap_or_default(),
        n_values.unwrap_or_default(),
        layer.bound.map(|bound| at_most(bound, 5)).unwrap_or_default(),
        at_most(layer.image_to_here, 5),
    ]
}

fn dims(shape: SignalShape) -> Vec<usize> {
    match shape {
        SignalShape::Image(image) => vec![image.channels, image.height, image.width],
        SignalShape::Vector(n) => vec![n],
    }
}

/// The smallest and the largest singular value of a layer with this output.
fn extremes(weight: &Tensor, output: SignalShape) -> Result<[f64; 2]> {
    // a convolution keeps the height and width that it sees after downsampling; a dense layer is one pixel
    let size = match output {
        SignalShape::Image(image) => (image.height, image.width),
        SignalShape::Vector(_) => (1, 1),
    };
    let sigma = singular_values(weight, size)?;
    let min = sigma.iter().copied().fold(f64::INFINITY, f64::min);
    Ok([min, sigma.iter().copied().fold(0.0, f64::max)])
}
