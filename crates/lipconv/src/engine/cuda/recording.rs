//! What a graph records: the kernels of a training step, or of the logits of a batch.

use super::backend::{Address, Argument, Launch, arguments};
use super::emit::{CONTROL_BYTES, Emit};
use super::layer::Linear;
use super::memory::Memory;
use super::settings::{calls_back, loss_words, optimizer_constants};
use super::status::{REHEARSAL, Status};
use super::{Engine, Graph, no_images, streams};
use crate::error::Result;
use crate::loss::Loss;

impl Engine {
    /// Does what is wanted: as a recorded graph, or operation by operation where the device takes no graph.
    pub(super) fn perform(&mut self, wanted: Graph) -> Result<()> {
        match self.ready(wanted)? {
            Some(graph) => self.device.replay(graph),
            None => self.record(wanted),
        }
    }

    /// The graph of what is wanted, `None` where the device takes no graph. Before it is recorded everything is done once, which overwrites
    /// what it works on: whoever hands values to a graph that overwrites them writes them after this.
    pub(super) fn ready(&mut self, wanted: Graph) -> Result<Option<usize>> {
        if self.takes_no_graphs {
            return Ok(None);
        }
        if let Some(&graph) = self.graphs.get(&wanted) {
            return Ok(Some(graph));
        }
        self.rehearse(wanted)?;
        match self.capture(wanted) {
            Ok(graph) => {
                self.graphs.insert(wanted, graph);
                Ok(Some(graph))
            }
            Err(_) => {
                self.takes_no_graphs = true;
                Ok(None)
            }
        }
    }

    fn capture(&mut self, wanted: Graph) -> Result<usize> {
        self.device.begin_record()?;
        let recorded = self.record(wanted);
        // ended even so: a device that still records does nothing else
        let graph = self.device.end_record();
        recorded.and(graph)
    }

    /// Does the work once as a step that has failed already: it changes nothing that is kept. A device loads its code at the first use,
    /// which cannot be recorded.
    fn rehearse(&mut self, wanted: Graph) -> Result<()> {
        let mut bytes = [0; CONTROL_BYTES];
        self.device.read(self.memory.control, &mut bytes)?;
        self.write_status(Status { failed: REHEARSAL, ..Status::default() })?;
        self.record(wanted)?;
        self.device.write(self.memory.control, &bytes)?;
        self.device.write(self.memory.defects, &vec![0; 4 * self.layers.len()])
    }

    fn record(&mut self, wanted: Graph) -> Result<()> {
        let batch = wanted.batch();
        match wanted {
            Graph::Resident(_) | Graph::Copied(_) => {
                self.record_forward(wanted)?;
                self.record_backward(batch)
            }
            Graph::Logits(_) => {
                self.record_forward(wanted)?;
                self.record_measurement()
            }
            Graph::InputGradient(_) => {
                self.record_forward(wanted)?;
                self.record_input_gradient(batch)?;
                self.record_measurement()
            }
            Graph::Weight => self.record_weight(),
            Graph::WeightGradient => self.record_weight_gradient(true),
            Graph::Pullback => self.record_weight_gradient(false),
        }
    }

    fn record_forward(&mut self, wanted: Graph) -> Result<()> {
        let mut emit = Emit::new(&mut *self.device, self.memory.control);
        let (memory, layers, input) = (&self.memory, &self.layers, self.blueprint.input);
        for (n, layer) in layers.iter().enumerate() {
            let own = streams(n);
            emit.wait(own[0], 0)?;
            emit.wait(own[1], 0)?;
            layer.assemble(&mut emit, own)?;
            emit.wait(own[0], own[1])?;
        }
        let batch = wanted.batch();
        if let Graph::Resident(_) = wanted {
            let whole = self.batch;
            let r = self.resident.as_ref().ok_or_else(no_images)?;
            let (h, w, c) = (input.height, input.width, input.channels);
            let (images, labels, control) = (memory.images, memory.labels, memory.control);
            let gathered = arguments![
                r.images, r.labels, r.samples, r.values, images, labels, control, batch, whole, h,
                w, c
            ];
            emit.launch(Launch::each("gather_batch", 0, batch * h * w * c, gathered))?;
        } else {
            let pixels = [input.height * input.width, input.channels];
            turn(&mut emit, batch, pixels, memory.copied, memory.images, true)?;
        }
        let inputs = std::iter::once(memory.images).chain(layers.iter().map(|layer| layer.y));
        for (n, (layer, from)) in layers.iter().zip(inputs).enumerate() {
            if let Some(shape) = self.turns[n] {
                turn(&mut emit, batch, shape, from, layer.x, false)?;
            }
            emit.wait(0, streams(n)[0])?;
            layer.forward(&mut emit, batch)?;
        }
        Ok(())
    }

    /// The defects of all weights, where no step measures them on its way back.
    fn record_measurement(&mut self) -> Result<()> {
        let mut emit = Emit::new(&mut *self.device, self.memory.control);
        for (n, layer) in self.layers.iter().enumerate() {
            layer.weight.measure(&mut emit, streams(n))?;
            emit.wait(0, streams(n)[0])?;
        }
        Ok(())
    }

    /// The gradient of the images from that of the logits, which the host has copied to its place, channels first.
    fn record_input_gradient(&mut self, batch: usize) -> Result<()> {
        let input = self.blueprint.input;
        let mut emit = Emit::new(&mut *self.device, self.memory.control);
        let (memory, layers) = (&self.memory, &self.layers);
        for (n, layer) in layers.iter().enumerate().rev() {
            layer.backward_activation(&mut emit, batch)?;
            layer.backward_input(&mut emit, batch, memory.d_patches)?;
            if let Some(shape) = self.turns[n] {
                let to = if n > 0 { layers[n - 1].dy } else { memory.d_images };
                turn(&mut emit, batch, shape, layer.dx, to, true)?;
            }
        }
        let pixels = [input.height * input.width, input.channels];
        turn(&mut emit, batch, pixels, memory.d_images, memory.copied, false)
    }

    fn record_backward(&mut self, batch: usize) -> Result<()> {
        let mut emit = Emit::new(&mut *self.device, self.memory.control);
        let (memory, layers) = (&self.memory, &self.layers);
        for (n, layer) in layers.iter().enumerate() {
            layer.weight.prepare_backward(&mut emit, streams(n))?;
        }
        let last = layers.last().ok_or_else(no_images)?;
        evaluate(&mut emit, memory, last, &self.method.loss, [batch, self.blueprint.n_classes()])?;
        for (n, layer) in layers.iter().enumerate().rev() {
            layer.backward_activation(&mut emit, batch)?;
            layer.backward_weight(&mut emit, batch)?;
            if n + 1 == layers.len() && self.method.loss.needs_pairs() {
                pull_pairs_back(&mut emit, memory, layer, [batch, self.blueprint.n_classes()])?;
            }
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
        self.record_update()
    }

    /// The update of all that a step changes, if it has not failed.
    fn record_update(&mut self) -> Result<()> {
        let mut emit = Emit::new(&mut *self.device, self.memory.control);
        let memory = &self.memory;
        let (n, control) = (memory.n_parameters, memory.control);
        let (p, g, settings) = (memory.parameters, memory.gradients, memory.settings);
        emit.launch(Launch::each("check_finite", 0, n, arguments![g, n, control]))?;
        let (n_moments, calls_back) =
            (self.method.optimizer.moment_names().len(), calls_back(self.method.averaging));
        let (moments, average) = memory.moments.split_at(n_moments);
        if let ([average], Some(_)) = (average, calls_back) {
            let begun = arguments![p, *average, n, settings, control];
            emit.launch(Launch::each("begin_average", 0, n, begun))?;
        }
        let (kernel, constants) = optimizer_constants(&self.method.optimizer);
        let mut handed = arguments![p, g];
        handed.extend(moments.iter().map(|&place| place.words()));
        handed.extend(arguments![n, settings]);
        handed.extend(constants.into_iter().map(Argument::words));
        handed.push(control.words());
        emit.launch(Launch::each(kernel, 0, n, handed))?;
        if let ([average], Some(calls_back)) = (average, calls_back) {
            let followed = arguments![p, *average, n, settings, calls_back, control];
            emit.launch(Launch::each("follow_average", 0, n, followed))?;
        }
        for layer in &self.layers {
            layer.weight.keep(&mut emit, 0)?;
        }
        emit.launch(Launch::block("end_step", 0, arguments![control, memory.outcomes]))
    }
}

/// Loss and gradient of the logits.
fn evaluate(
    emit: &mut Emit<'_>,
    memory: &Memory,
    last: &Linear,
    loss: &Loss,
    [batch, n_classes]: [usize; 2],
) -> Result<()> {
    let [norms, _, d_norms] = memory.pairs;
    if loss.needs_pairs() {
        let (dense, shape) = (last.dense(), last.dense_shape());
        let strides = dense.strides(shape);
        let measured = arguments![dense.weight, &strides[..], norms, shape[1]];
        let grid = [n_classes, n_classes, 1];
        emit.launch(Launch::grid("pair_norms", 0, grid, measured))?;
    }
    let words = loss_words(loss);
    let evaluated = arguments![
        last.y,
        memory.labels,
        last.dy,
        batch,
        n_classes,
        &words[..],
        memory.settings,
        norms,
        d_norms,
        memory.control
    ];
    emit.launch(Launch::block("loss", 0, evaluated))
}

/// Adds what comes through the distances of its rows to the gradient of the last weight.
fn pull_pairs_back(
    emit: &mut Emit<'_>,
    memory: &Memory,
    last: &Linear,
    [batch, n_classes]: [usize; 2],
) -> Result<()> {
    let [norms, sums, d_norms] = memory.pairs;
    let summed = arguments![d_norms, memory.labels, sums, batch, n_classes];
    emit.launch(Launch::each("pair_sums", 0, n_classes * n_classes, summed))?;
    let (dense, shape) = (last.dense(), last.dense_shape());
    let strides = dense.strides(shape);
    let (n, d_weight) = (shape[1], dense.d_weight);
    let pulled = arguments![dense.weight, d_weight, &strides[..], norms, sums, n_classes, n];
    emit.launch(Launch::each("pair_gradient", 0, n_classes * n, pulled))
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
