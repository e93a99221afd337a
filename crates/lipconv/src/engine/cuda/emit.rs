//! Gives a device the operations of a step: what the modules of layers have in common.

use super::backend::{Address, Backend, Launch, Matrix, Product, arguments};
use crate::error::Result;

/// Bytes of the kernels' structure `Control`.
pub(super) const CONTROL_BYTES: usize = 48;

/// A device that is given operations.
#[derive(Debug)]
pub(super) struct Emit<'a> {
    backend: &'a mut dyn Backend,
    control: Address,
}

impl<'a> Emit<'a> {
    pub(super) fn new(backend: &'a mut dyn Backend, control: Address) -> Self {
        Self { backend, control }
    }

    /// Where the kernels' structure `Control` lies.
    pub(super) fn control(&self) -> Address {
        self.control
    }

    /// Memory for `n` values of f32, all 0.
    pub(super) fn floats(&mut self, n: usize) -> Result<Address> {
        self.backend.allocate(4 * n)
    }

    /// Memory for `n` bytes, all 0.
    pub(super) fn bytes(&mut self, n: usize) -> Result<Address> {
        self.backend.allocate(n)
    }

    pub(super) fn launch(&mut self, launch: Launch) -> Result<()> {
        self.backend.launch(&launch)
    }

    pub(super) fn multiply(&mut self, stream: usize, product: Product) -> Result<()> {
        self.backend.multiply(stream, &product)
    }

    pub(super) fn wait(&mut self, stream: usize, other: usize) -> Result<()> {
        self.backend.wait(stream, other)
    }

    /// out = alpha U + beta (V + sign Vᵗ) for n x n matrices, U = 0 where its address is.
    pub(super) fn with_transpose(
        &mut self,
        stream: usize,
        n: usize,
        (u, alpha): (Address, f32),
        (v, beta, sign): (Matrix, f32, f32),
        out: Address,
    ) -> Result<()> {
        self.with_transposes(stream, [n, 1], (u, alpha), (v, beta, sign), out)
    }

    /// [`Emit::with_transpose`] for `count` matrices, one after the other.
    pub(super) fn with_transposes(
        &mut self,
        stream: usize,
        [n, count]: [usize; 2],
        (u, alpha): (Address, f32),
        (v, beta, sign): (Matrix, f32, f32),
        out: Address,
    ) -> Result<()> {
        let tiles = n.div_ceil(32);
        let arguments = arguments![u, v.at, out, n, v.ld, alpha, beta, sign];
        self.launch(Launch::grid("with_transpose", stream, [tiles, tiles, count], arguments))
    }

    /// The transpose of a rows x columns matrix, times a factor.
    pub(super) fn transpose(
        &mut self,
        stream: usize,
        [rows, columns]: [usize; 2],
        from: Address,
        to: Address,
    ) -> Result<()> {
        let grid = [columns.div_ceil(32), rows.div_ceil(32), 1];
        let arguments = arguments![from, to, rows, columns, 1.0_f32];
        self.launch(Launch::grid("transpose", stream, grid, arguments))
    }
}
