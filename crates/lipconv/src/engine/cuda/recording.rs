//! What a graph records: the kernels of a training step, or of the logits of a batch.

use super::backend::{Address, Launch, arguments};
use super::emit::{CONTROL_BYTES, Emit};
use super::memory::Memory;
use super::status::{REHEARSAL, Status};
use super::{Engine, Graph, no_images, streams};
use crate::error::Result;
use crate::optim::Optimizer;

impl Engine {
    pub(super) fn graph(&mut self, wanted: Graph) -> Result<usize> {
        if let Some(&graph) = self.graphs.get(&wanted) {
            return Ok(graph);
        }
        if self.device.rehearses() {
            self.rehearse(wanted)?;
        }
        self.device.begin_record()?;
        self.record(wanted)?;
        let graph = self.device.end_record()?;
        self.graphs.insert(wanted, graph);
        Ok(graph)
    }

    /// Does the work once as a step that has failed already: it changes nothing.
    fn rehearse(&mut self, wanted: Graph) -> Result<()> {
        let mut bytes = [0; CONTROL_BYTES];
        self.device.read(self.memory.control, &mut bytes)?;
        self.write_status(Status { failed: REHEARSAL, ..Status::default() })?;
        self.record(wanted)?;
        self.device.write(self.memory.control, &bytes)?;
        self.device.write(self.memory.defects, &vec![0; 4 * self.layers.len()])
    }

    fn record(&mut self, wanted: Graph) -> Result<()> {
        let mut emit = Emit::new(&mut *self.device, self.memory.control);
        let (memory, layers, input) = (&self.memory, &self.layers, self.blueprint.input);
        for (n, layer) in layers.iter().enumerate() {
            let own = streams(n);
            emit.wait(own[0], 0)?;
            emit.wait(own[1], 0)?;
            layer.assemble(&mut emit, own)?;
            emit.wait(own[0], own[1])?;
        }
        let batch = match wanted {
            Graph::Resident(batch) => {
                let whole = self.batch;
                let r = self.resident.as_ref().ok_or_else(no_images)?;
                let (h, w, c) = (input.height, input.width, input.channels);
                let (images, labels) = (memory.images, memory.labels);
                let gathered = arguments![
                    r.images,
                    r.labels,
                    r.samples,
                    r.values,
                    images,
                    labels,
                    memory.control,
                    batch,
                    whole,
                    h,
                    w,
                    c
                ];
                emit.launch(Launch::each("gather_batch", 0, batch * h * w * c, gathered))?;
                batch
            }
            Graph::Copied(batch) | Graph::Logits(batch) => {
                let pixels = [input.height * input.width, input.channels];
                turn(&mut emit, batch, pixels, memory.copied, memory.images, true)?;
                batch
            }
        };
        let inputs = std::iter::once(memory.images).chain(layers.iter().map(|layer| layer.y));
        for (n, (layer, from)) in layers.iter().zip(inputs).enumerate() {
            if let Some(shape) = self.turns[n] {
                turn(&mut emit, batch, shape, from, layer.x, false)?;
            }
            emit.wait(0, streams(n)[0])?;
            layer.forward(&mut emit, batch)?;
        }
        if matches!(wanted, Graph::Logits(_)) {
            for (n, layer) in layers.iter().enumerate() {
                layer.measure(&mut emit, streams(n))?;
                emit.wait(0, streams(n)[0])?;
            }
            return Ok(());
        }
        self.record_backward(batch)
    }

    fn record_backward(&mut self, batch: usize) -> Result<()> {
        let n_classes = self.blueprint.n_classes();
        let mut emit = Emit::new(&mut *self.device, self.memory.control);
        let (memory, layers) = (&self.memory, &self.layers);
        for (n, layer) in layers.iter().enumerate() {
            layer.prepare_backward(&mut emit, streams(n))?;
        }
        let last = layers.last().ok_or_else(no_images)?;
        let (kind, first, second) = self.loss.arguments();
        let evaluated = arguments![
            last.y,
            memory.labels,
            last.dy,
            batch,
            n_classes,
            kind,
            first,
            second,
            memory.control
        ];
        emit.launch(Launch::block("loss", 0, evaluated))?;
        for (n, layer) in layers.iter().enumerate().rev() {
            layer.backward(&mut emit, batch)?;
            emit.wait(streams(n)[0], 0)?;
            layer.pull_back(&mut emit, streams(n), batch)?;
            if n > 0 {
                layer.backward_input(&mut emit, batch, memory.d_patches)?;
                if let Some(shape) = self.turns[n] {
                    turn(&mut emit, batch, shape, layer.dx, layers[n - 1].dy, true)?;
                }
            }
        }
        for n in 0..layers.len() {
            emit.wait(0, streams(n)[0])?;
        }
        update(&mut emit, memory, &self.optimizer)
    }
}

/// Channels last to channels first, or back.
fn turn(
    emit: &mut Emit<'_>,
    batch: usize,
    [pixels, channels]: [usize; 2],
    from: Address,
    to: Address,
    back: bool,
) -> Result<()> {
    let arguments = arguments![from, to, batch, pixels, channels, u32::from(back)];
    emit.launch(Launch::each("swap_channels", 0, batch * pixels * channels, arguments))
}

fn update(emit: &mut Emit<'_>, memory: &Memory, optimizer: &Optimizer) -> Result<()> {
    let n = memory.n_parameters;
    let (p, g, rates, control) =
        (memory.parameters, memory.gradients, memory.rates, memory.control);
    emit.launch(Launch::each("check_finite", 0, n, arguments![g, n, control]))?;
    let launch = match (optimizer, memory.moments.as_slice()) {
        (Optimizer::Adam(config), &[first, second]) => {
            let [beta1, beta2] = [config.beta1, config.beta2];
            let decays = [beta1, beta2, 1.0 - beta1, 1.0 - beta2, config.epsilon].map(|x| x as f32);
            let [beta1, beta2, rest1, rest2, epsilon] = decays;
            let arguments = arguments![
                p, g, first, second, n, rates, beta1, beta2, rest1, rest2, epsilon, control
            ];
            Launch::each("adam", 0, n, arguments)
        }
        (Optimizer::RmsProp(config), &[square]) => {
            let (alpha, rest) = (config.alpha as f32, (1.0 - config.alpha) as f32);
            let epsilon = config.epsilon as f32;
            let arguments = arguments![p, g, square, n, rates, alpha, rest, epsilon, control];
            Launch::each("rms_prop", 0, n, arguments)
        }
        _ => unreachable!("memory is made for the means of the optimiser"),
    };
    emit.launch(launch)?;
    emit.launch(Launch::block("end_step", 0, arguments![control, 0_u32]))
}
