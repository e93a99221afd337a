//! Trains a network on points that are in memory: which of two rings a point of the plane is on.
//!
//!     cargo run --release -p lipconv --example train_in_memory
//!
//! It prints the loss of each epoch and ends with an accuracy above 90 %.

use std::ops::ControlFlow;

use candle_core::{DType, Device, Tensor};
use lipconv::train::EpochReport;
use lipconv::{
    Activation, ImageShape, InMemory, LayerSpec, LinearMethod, Loss, Network, NetworkSpec,
    Observer, Result, TrainConfig, Trainer,
};

/// Prints the epochs.
struct Print;

impl Observer for Print {
    fn after_epoch(&mut self, _: &Trainer, report: &EpochReport) -> Result<ControlFlow<()>> {
        println!("epoch {}: loss {:.3}", report.epoch + 1, report.loss);
        Ok(ControlFlow::Continue(()))
    }
}

/// Points on rings of radius 1 and 2, with labels 0 and 1.
fn rings(n: u32) -> Result<(Tensor, Vec<u32>)> {
    let labels: Vec<u32> = (0..n).map(|index| index % 2).collect();
    let points = labels.iter().zip(0..n).flat_map(|(&label, index)| {
        let (sin, cos) = (f64::from(index) * 2.4).sin_cos();
        let radius = f64::from(label + 1);
        [(radius * cos) as f32, (radius * sin) as f32]
    });
    let points = Tensor::from_vec(points.collect::<Vec<_>>(), (n as usize, 2), &Device::Cpu)?;
    Ok((points, labels))
}

fn main() -> Result<()> {
    let (points, labels) = rings(512)?;
    let linear = |out_features| LayerSpec::Linear { out_features, method: LinearMethod::Bjorck };
    let max_min = LayerSpec::Activation(Activation::MaxMin);
    let layers = vec![LayerSpec::Flatten, linear(32), max_min, linear(32), max_min, linear(2)];
    let spec = NetworkSpec { input: ImageShape::vector(2), layers };
    let network = Network::new(&spec, DType::F32, &Device::Cpu, 0)?;
    let loss = Loss::MultiClassHinge { margin: 0.3 };
    let config = TrainConfig { epochs: 20, learning_rate: 5e-3, loss, ..Default::default() };
    let mut trainer = Trainer::new(network, config)?;
    trainer.fit(&mut InMemory::new(points.clone(), labels.clone(), 64)?, &mut Print)?;

    let plain = trainer.network().materialize()?;
    let predicted = plain.forward(&points)?.argmax(1)?.to_vec1::<u32>()?;
    let n_correct = predicted.iter().zip(&labels).filter(|(a, b)| a == b).count();
    println!("{n_correct} of {} points are right", labels.len());
    println!("norm of the network: at most {}", plain.lipschitz_bound()?.value());
    assert!(n_correct > 460);
    Ok(())
}
