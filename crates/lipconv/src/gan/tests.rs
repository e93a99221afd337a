//! The gradient that the generator follows.

use candle_core::{DType, Device, Tensor};

use super::*;
use crate::activation::Activation;
use crate::generator::{GeneratorSpec, latents};
use crate::shape::ImageShape;
use crate::spec::{LayerSpec, Methods, NetworkSpec};

const IMAGE: ImageShape = ImageShape::new(2, 8, 8);

fn config() -> GanConfig {
    let (critic, generator) = (PlayerConfig::default(), PlayerConfig::default());
    GanConfig { epochs: 1, n_critic: 1, critic, generator, seed: 2 }
}

fn critic_spec(methods: Methods, activation: LayerSpec) -> NetworkSpec {
    let conv = |c_out| LayerSpec::Conv { c_out, kernel_size: 4, stride: 2, method: methods.conv };
    let linear = LayerSpec::Linear { out_features: 1, method: methods.linear };
    let layers = vec![conv(4), activation, conv(6), activation, LayerSpec::Flatten, linear];
    NetworkSpec { input: IMAGE, layers }
}

fn trainer(critic: &NetworkSpec) -> GanTrainer {
    let spec = GeneratorSpec { latent: 3, hidden: 8, channels: 4, output: IMAGE };
    let generator = Generator::new(&spec, DType::F64, &Device::Cpu, 1).unwrap();
    let critic = Network::new(critic, DType::F64, &Device::Cpu, 2).unwrap();
    // away from the start, where biases are 0 and dead regions tie
    for (n, (_, variable)) in generator.variables().into_iter().enumerate() {
        let noise = latents(variable.elem_count(), 1, 5, n as u64, DType::F64, &Device::Cpu);
        let noise = (noise.unwrap().reshape(variable.shape()).unwrap() * 0.3).unwrap();
        variable.set(&(variable.as_detached_tensor() + noise).unwrap()).unwrap();
    }
    GanTrainer::new(generator, critic, config()).unwrap().epochs_of(10).unwrap()
}

fn mean_value(trainer: &GanTrainer, z: &Tensor) -> f64 {
    let images = trainer.generator.forward_batch(z).unwrap().images;
    let values = trainer.critic().forward(&images).unwrap();
    values.mean_all().unwrap().to_scalar().unwrap()
}

/// Central differences of `-mean f(G(z))` in random directions, one for each parameter tensor, through critics that run on
/// the engine and one that does not (its activation comes first).
#[test]
fn the_gradient_through_the_critic_is_that_of_finite_differences() {
    let mut on_graph = critic_spec(Methods::BCOP, LayerSpec::Activation(Activation::MaxMin));
    on_graph.layers.insert(0, LayerSpec::Activation(Activation::MaxMin));
    let critics = [
        critic_spec(Methods::BCOP, LayerSpec::Activation(Activation::MaxMin)),
        critic_spec(Methods::RKO, LayerSpec::Activation(Activation::Relu)),
        critic_spec(Methods::OSSN, LayerSpec::Activation(Activation::MaxMin)),
        on_graph,
    ];
    for critic in &critics {
        let mut trainer = trainer(critic);
        let z = latents(3, 6, 4, 0, DType::F64, &Device::Cpu).unwrap();
        let GeneratorGradient { value, gradients, .. } = trainer.generator_gradient(&z).unwrap();
        assert!((value - mean_value(&trainer, &z)).abs() < 1e-12);
        for (n, (name, variable)) in trainer.generator.variables().into_iter().enumerate() {
            let size = variable.elem_count();
            let direction = latents(size, 1, 7, n as u64, DType::F64, &Device::Cpu).unwrap();
            let direction = direction.reshape(variable.shape()).unwrap();
            let gradient = gradients.get(variable.as_tensor()).unwrap();
            let slope = (gradient * &direction).unwrap().sum_all().unwrap();
            let slope = slope.to_scalar::<f64>().unwrap();
            let start = variable.as_tensor().copy().unwrap();
            let step = 1e-6;
            let at = |t: f64| {
                variable.set(&(&start + (&direction * t).unwrap()).unwrap()).unwrap();
                -mean_value(&trainer, &z)
            };
            let difference = (at(step) - at(-step)) / (2.0 * step);
            variable.set(&start).unwrap();
            let allowed = 1e-4 * slope.abs().max(1e-3);
            assert!((difference - slope).abs() < allowed, "{name}: {difference} and {slope}");
        }
    }
}

/// What a step changes is what the optimiser makes of that gradient; the critic's own parameters do not move with it.
#[test]
fn a_generator_step_leaves_the_critic_alone() {
    let mut trainer =
        trainer(&critic_spec(Methods::BCOP, LayerSpec::Activation(Activation::MaxMin)));
    let numbers = |network: &Network| -> Vec<f64> {
        let values = |(_, v): (String, candle_core::Var)| v.flatten_all().unwrap().to_vec1();
        network.variables().into_iter().flat_map(|v| values(v).unwrap()).collect()
    };
    trainer.critic.progress.step = 1;
    let before = numbers(trainer.critic());
    let z = latents(3, 6, 4, 0, DType::F64, &Device::Cpu).unwrap();
    let value = mean_value(&trainer, &z);
    for _ in 0..5 {
        let GeneratorGradient { gradients, .. } = trainer.generator_gradient(&z).unwrap();
        let update = trainer.generator_update();
        trainer.state.step(&trainer.generator.variables(), &gradients, update).unwrap();
    }
    assert!(mean_value(&trainer, &z) > value, "the generator ascends the critic's mean");
    assert_eq!(numbers(trainer.critic()), before);
}
