use candle_core::{DType, Device, Tensor};
use lipconv::{
    AdamConfig, Batch, ImageShape, Loss, Methods, Network, NetworkSpec, Schedule, TrainConfig,
    Trainer,
};
fn main() -> Result<(), lipconv::Error> {
    let n_steps: usize = std::env::args().nth(1).unwrap().parse().unwrap();
    let spec = NetworkSpec::large(ImageShape::new(3, 32, 32), 10, Methods::BCOP, 1.0)?;
    let config = TrainConfig {
        epochs: 1,
        learning_rate: 1e-3,
        schedule: Schedule::Constant,
        adam: AdamConfig::default(),
        loss: Loss::MultiClassHinge { margin: 0.7071 },
        seed: 0,
    };
    let mut trainer = Trainer::new(Network::new(&spec, DType::F32, &Device::Cpu, 0)?, config)?;
    let mut data = Vec::new();
    for i in 1..=5 {
        data.extend(
            std::fs::read(format!("/tmp/cifar/cifar-10-batches-bin/data_batch_{i}.bin")).unwrap(),
        );
    }
    let t = std::time::Instant::now();
    for s in 0..n_steps {
        let mut px = Vec::with_capacity(128 * 3072);
        let mut lab = Vec::new();
        for j in 0..128 {
            let k = (s * 128 + j) * 7919 % 50000;
            let r = &data[k * 3073..(k + 1) * 3073];
            lab.push(r[0] as u32);
            px.extend(r[1..].iter().map(|&b| b as f32 / 255.0));
        }
        let images = Tensor::from_vec(px, (128, 3, 32, 32), &Device::Cpu)?;
        let out = trainer.step(&Batch { images, labels: lab }, n_steps)?;
        if s % 50 == 0 {
            eprintln!("STEP {s} {:?} {:?}", t.elapsed(), out);
        }
    }
    Ok(())
}
