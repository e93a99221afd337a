//! Distances: critics against what is known exactly.

use std::time::Duration;

use bench_apps::config::{ActivationKind, LayerKind};
use bench_apps::progress::{Display, Progress};
use bench_apps::wasserstein::anchors::Anchor;
use bench_apps::wasserstein::training::{CriticEnd, CriticJob, train_critic};
use bench_apps::wasserstein::{CriticConfig, CriticNetwork, Part, estimate};
use candle_core::Device;
use lipconv::ConvMethod;

fn config(method: ConvMethod, activation: ActivationKind, learning_rate: f64) -> CriticConfig {
    CriticConfig {
        network: CriticNetwork::Vector,
        method: LayerKind::Conv(method),
        activation,
        epochs: std::env::var("EPOCHS").map_or(20, |e| e.parse().unwrap()),
        epoch_steps: 25,
        batch_size: 64,
        learning_rate,
        seed: 0,
    }
}

#[test]
fn explore() {
    let anchors = Anchor::all(0).unwrap();
    for method in [ConvMethod::Bcop, ConvMethod::Rko, ConvMethod::Ossn] {
        for activation in [ActivationKind::MaxMin, ActivationKind::Relu] {
            for lr in [1e-1, 1e-2, 1e-3] {
                let start = std::time::Instant::now();
                let mut line = format!("{method:?} {activation:?} {lr}: ");
                for anchor in &anchors {
                    let config = config(method, activation, lr);
                    let job = CriticJob {
                        config: &config,
                        a: &anchor.a,
                        b: &anchor.b,
                        device: &Device::Cpu,
                        folder: None,
                        checkpoint_every: Duration::MAX,
                    };
                    let mut progress = Progress::new(Display::Silent, "", 0, 1);
                    let CriticEnd::Finished(critic) =
                        train_critic(&job, &mut progress, 0, "").unwrap()
                    else {
                        panic!()
                    };
                    let found = estimate(&critic.network, &anchor.a, &anchor.b, Part::Report, 2048)
                        .unwrap();
                    anchor.check(&found).unwrap();
                    line += &format!(
                        "{} {:.3} ({:.4}) ± {:.3}; ",
                        anchor.name,
                        found.value / anchor.exact,
                        found.lipschitz - 1.0,
                        found.standard_error
                    );
                }
                println!("{line} {:.1} s", start.elapsed().as_secs_f64());
            }
        }
    }
}
