//! What the engine asks of a device: memory, kernels, matrix products, streams and recorded graphs.
//!
//! Two implementations: a CUDA device, and an emulated one on the CPU. What is recorded between [`Backend::begin_record`] and
//! [`Backend::end_record`] is not carried out, but kept as a graph that [`Backend::replay`] carries out as often as wanted. Memory is
//! never given back while a backend lives: an engine allocates once.

use std::fmt::Debug;

use crate::error::Result;

/// A place in the device's memory, in bytes.
pub(super) type Address = u64;

/// The place of value `index` of f32 values that begin at `start`.
pub(super) fn at(start: Address, index: usize) -> Address {
    start + 4 * index as Address
}

/// A device.
pub(super) trait Backend: Debug + Send {
    /// Memory for `bytes` bytes, all zero, aligned for 16-byte values.
    fn allocate(&mut self, bytes: usize) -> Result<Address>;

    /// Copies from the host, after all work given to stream 0.
    fn write(&mut self, to: Address, bytes: &[u8]) -> Result<()>;

    /// Copies to the host, after all work given to stream 0.
    fn read(&mut self, from: Address, bytes: &mut [u8]) -> Result<()>;

    /// Copies from another place on the device, which need not be this backend's and has been written.
    #[cfg(feature = "cuda")]
    fn copy(&mut self, from: Address, to: Address, bytes: usize) -> Result<()>;

    /// Runs a kernel.
    fn launch(&mut self, launch: &Launch) -> Result<()>;

    /// Multiplies matrices.
    fn multiply(&mut self, stream: usize, product: &Product) -> Result<()>;

    /// Makes `stream` wait for all that `other` has been given so far.
    fn wait(&mut self, stream: usize, other: usize) -> Result<()>;

    /// Begins to record what stream 0, and every stream that waits for it, is given.
    fn begin_record(&mut self) -> Result<()>;

    /// Ends the record, with all streams joined to stream 0, and gives its number.
    fn end_record(&mut self) -> Result<usize>;

    /// Carries out a record on stream 0.
    fn replay(&mut self, graph: usize) -> Result<()>;
}

/// A kernel and how to run it.
#[derive(Debug, Clone)]
pub(super) struct Launch {
    pub(super) kernel: &'static str,
    #[cfg_attr(
        not(feature = "cuda-engine"),
        expect(dead_code, reason = "emulation has no streams")
    )]
    pub(super) stream: usize,
    pub(super) grid: [u32; 3],
    pub(super) threads: u32,
    /// Bytes of dynamic shared memory.
    pub(super) shared: usize,
    /// Each argument in words of 8 bytes.
    pub(super) arguments: Vec<Vec<u64>>,
}

/// Threads of a block unless a kernel says otherwise.
pub(super) const THREADS: u32 = 256;
/// Blocks of a kernel that strides over its values: enough to fill any device.
const MAX_BLOCKS: usize = 2048;

impl Launch {
    /// One block.
    pub(super) fn block(kernel: &'static str, stream: usize, arguments: Vec<Vec<u64>>) -> Self {
        Self::grid(kernel, stream, [1, 1, 1], arguments)
    }

    /// So many blocks.
    pub(super) fn grid(
        kernel: &'static str,
        stream: usize,
        grid: [usize; 3],
        arguments: Vec<Vec<u64>>,
    ) -> Self {
        let grid = grid.map(|n| u32::try_from(n).expect("a grid is planned to fit"));
        Self { kernel, stream, grid, threads: THREADS, shared: 0, arguments }
    }

    /// Blocks for a kernel that does something for each of `n` values.
    pub(super) fn each(
        kernel: &'static str,
        stream: usize,
        n: usize,
        arguments: Vec<Vec<u64>>,
    ) -> Self {
        let blocks = n.div_ceil(THREADS as usize).clamp(1, MAX_BLOCKS);
        Self::grid(kernel, stream, [blocks, 1, 1], arguments)
    }
}

/// What can be handed to a kernel.
pub(super) trait Argument {
    /// The value in words of 8 bytes.
    fn words(self) -> Vec<u64>;
}

impl Argument for Address {
    fn words(self) -> Vec<u64> {
        vec![self]
    }
}

impl Argument for u32 {
    fn words(self) -> Vec<u64> {
        vec![u64::from(self)]
    }
}

impl Argument for usize {
    fn words(self) -> Vec<u64> {
        u32::try_from(self).expect("a size is planned to fit 32 bits").words()
    }
}

impl Argument for f32 {
    fn words(self) -> Vec<u64> {
        self.to_bits().words()
    }
}

/// A structure of 32-bit values.
impl Argument for &[u32] {
    fn words(self) -> Vec<u64> {
        let pair =
            |pair: &[u32]| u64::from(pair[0]) | pair.get(1).map_or(0, |&x| u64::from(x) << 32);
        self.chunks(2).map(pair).collect()
    }
}

/// The arguments of a kernel.
macro_rules! arguments {
    ($($argument:expr),* $(,)?) => {
        vec![$($crate::engine::cuda::backend::Argument::words($argument)),*]
    };
}
pub(super) use arguments;

/// A row-major matrix in the device's memory, and the next one of a batch.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Matrix {
    pub(super) at: Address,
    /// Values between two rows.
    pub(super) ld: usize,
    /// Values between two matrices of a batch.
    pub(super) stride: usize,
    /// Whether its transpose is meant.
    pub(super) transposed: bool,
}

impl Matrix {
    pub(super) fn new(at: Address, ld: usize) -> Self {
        Self { at, ld, stride: 0, transposed: false }
    }

    /// Matrices `stride` values apart.
    pub(super) fn every(self, stride: usize) -> Self {
        Self { stride, ..self }
    }

    /// Its transpose.
    pub(super) fn t(self) -> Self {
        Self { transposed: !self.transposed, ..self }
    }
}

/// C = alpha A B + beta C for m x k matrices A and k x n matrices B, both as they are after transposition.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Product {
    pub(super) m: usize,
    pub(super) n: usize,
    pub(super) k: usize,
    pub(super) a: Matrix,
    pub(super) b: Matrix,
    pub(super) c: Matrix,
    pub(super) alpha: f32,
    pub(super) beta: f32,
    pub(super) batch: usize,
}

impl Product {
    /// C = A B.
    pub(super) fn new([m, n, k]: [usize; 3], a: Matrix, b: Matrix, c: Matrix) -> Self {
        Self { m, n, k, a, b, c, alpha: 1.0, beta: 0.0, batch: 1 }
    }

    /// Added to `beta` times what C was.
    pub(super) fn plus(self, beta: f32) -> Self {
        Self { beta, ..self }
    }

    /// Times `alpha`.
    pub(super) fn times(self, alpha: f32) -> Self {
        Self { alpha, ..self }
    }

    /// For a batch of `batch` matrices.
    pub(super) fn batch(self, batch: usize) -> Self {
        Self { batch, ..self }
    }
}
