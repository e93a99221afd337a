//! `lipconv inspect`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use blockconv::spectrum::layer_singular_values;
use candle_core::{DType, Tensor};
use lipconv::{PlainLayer, PlainNetwork, SignalShape};
use ndarray::Array4;

use super::model::Model;
use crate::stdout::outln;
use crate::words::{at_most, at_most_scientific, lipschitz_text, shape_text, text_table};

/// Layers of a trained network: shapes, singular values, defects, bounds
///
/// Singular values are those of the whole linear map of a layer at the image size it sees, cyclic boundary included. The
/// defect is the largest distance of one from 1. The bound is rigorous for the stored weights, rounding included.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  lipconv inspect runs/first
  lipconv inspect runs/first/network.safetensors")]
pub(super) struct Args {
    /// A run directory, or a file of weights
    #[arg(value_name = "RUN")]
    model: PathBuf,
}

pub(super) fn run(args: &Args) -> Result<ExitCode> {
    let model = Model::load(&args.model, Some(crate::config::DeviceKind::Cpu))?;
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
    outln!("\n{}", text_table(&rows(network)?));
    outln!("{}", bound_line(network)?);
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
    let certifier = certify::Certifier::new(network)?;
    let n = network.n_classes();
    let pairs = (0..n).flat_map(|t| (0..t).map(move |j| (t, j)));
    let largest = pairs.map(|(t, j)| certifier.difference_constant(t, j)).fold(0.0, f64::max);
    Ok(format!("{line}; of a difference of two logits: at most {}", at_most(largest, 5)))
}

/// A row for each layer, with a heading.
pub(super) fn rows(network: &PlainNetwork) -> Result<Vec<Vec<String>>> {
    if !is_own(network) {
        return foreign_rows(network);
    }
    let heading =
        ["layer", "output", "weight", "values", "sigma_min", "sigma_max", "defect", "bound - 1"];
    let mut rows = vec![heading.map(str::to_owned).to_vec()];
    let mut shape = SignalShape::Image(network.input());
    for (layer, name) in network.layers().iter().zip(network.names()) {
        let output = layer.output_shape(shape, name)?;
        let mut row = vec![name.clone(), signal_text(output)];
        row.extend(weight_columns(layer, name, shape)?);
        rows.push(row);
        shape = output;
    }
    Ok(rows)
}

/// For a network of another program: what each layer may multiply distances by, and what all up to it may.
fn foreign_rows(network: &PlainNetwork) -> Result<Vec<Vec<String>>> {
    let heading = ["layer", "from", "output", "weight", "values", "bound", "image to here"];
    let mut rows = vec![heading.map(str::to_owned).to_vec()];
    let (own, signals) = (network.lipschitz_bounds()?, network.signal_bounds()?);
    for (i, (layer, name)) in network.layers().iter().zip(network.names()).enumerate() {
        let earlier = layer.earlier().map(|from| match from {
            0 => "image".to_owned(),
            from => network.names()[from - 1].clone(),
        });
        let (weight, values) = match layer.parameters() {
            None => (String::new(), String::new()),
            Some((weight, bias)) => {
                let n = weight.elem_count() + bias.map_or(0, Tensor::elem_count);
                (shape_text(weight.dims()), n.to_string())
            }
        };
        let bound =
            if layer.earlier().is_some() { String::new() } else { at_most(own[i].value(), 5) };
        rows.push(vec![
            name.clone(),
            earlier.unwrap_or_default(),
            signal_text(network.shapes()[i + 1]),
            weight,
            values,
            bound,
            at_most(signals[i + 1].value(), 5),
        ]);
    }
    Ok(rows)
}

fn signal_text(shape: SignalShape) -> String {
    match shape {
        SignalShape::Image(image) => shape_text(&[image.channels, image.height, image.width]),
        SignalShape::Vector(n) => n.to_string(),
    }
}

/// Weight, number of values, singular values, defect and bound; nothing for a layer without weights.
fn weight_columns(layer: &PlainLayer, name: &str, input: SignalShape) -> Result<Vec<String>> {
    let Some((weight, bias)) = layer.parameters() else { return Ok(Vec::new()) };
    let oihw = as_oihw(weight)?;
    // a convolution keeps the height and width that it sees after downsampling; a dense layer is one pixel
    let size = match layer.output_shape(input, name)? {
        SignalShape::Image(image) => (image.height, image.width),
        SignalShape::Vector(_) => (1, 1),
    };
    let sigma = layer_singular_values(oihw.view(), size).with_context(|| name.to_owned())?;
    let min = sigma.iter().copied().fold(f64::INFINITY, f64::min);
    let max = sigma.iter().copied().fold(0.0, f64::max);
    let n_values = weight.elem_count() + bias.map_or(0, Tensor::elem_count);
    Ok(vec![
        shape_text(weight.dims()),
        n_values.to_string(),
        format!("{min:.7}"),
        format!("{max:.7}"),
        format!("{:.1e}", (1.0 - min).abs().max((max - 1.0).abs())),
        at_most_scientific(layer.lipschitz_bound_on(input, name)?.value() - 1.0, 1),
    ])
}

/// The weight in f64; a dense one as a 1 x 1 convolution.
fn as_oihw(weight: &Tensor) -> Result<Array4<f64>> {
    let dims = match *weight.dims() {
        [c_out, c_in] => (c_out, c_in, 1, 1),
        [c_out, c_in, kh, kw] => (c_out, c_in, kh, kw),
        _ => anyhow::bail!("a weight has shape {:?}, expected 2 or 4 dimensions", weight.dims()),
    };
    let values = weight.to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>()?;
    Ok(Array4::from_shape_vec(dims, values)?)
}
