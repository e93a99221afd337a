//! An emulated device: the kernels as C++ on one thread of the CPU, matrix products by ndarray.
//!
//! Guarantee: the same sequence of operations as on a CUDA device, streams in the order in which they were given work. Races between
//! streams or between threads without a barrier between them do not show here.

#![expect(unsafe_code, reason = "device memory is reached through addresses, as on a device")]

use std::ffi::{CString, c_char, c_int, c_uint, c_void};

use ndarray::linalg::general_mat_mul;
use ndarray::{ArrayView2, ArrayViewMut2, ShapeBuilder};

use super::backend::{Address, Backend, Launch, Matrix, Product};
use crate::error::{Error, Result};

unsafe extern "C" {
    fn lipconv_emulated_launch(
        name: *const c_char,
        grid: *const c_uint,
        threads: c_uint,
        shared: c_uint,
        arguments: *mut *mut c_void,
    ) -> c_int;
}

/// An emulated device and what it refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Emulated {
    /// Bytes of memory that it has.
    pub memory: usize,
    /// Whether it records graphs.
    pub takes_graphs: bool,
}

impl Default for Emulated {
    /// Refuses nothing.
    fn default() -> Self {
        Self { memory: usize::MAX, takes_graphs: true }
    }
}

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct Emulation {
    settings: Emulated,
    memory: Vec<Vec<u128>>,
    recording: Option<Vec<Command>>,
    graphs: Vec<Vec<Command>>,
}

#[derive(Debug, Clone)]
enum Command {
    Launch(Launch),
    Multiply(Product),
}

impl Emulation {
    pub(super) fn new(settings: Emulated) -> Self {
        Self { settings, ..Self::default() }
    }

    fn give(&mut self, command: Command) -> Result<()> {
        match &mut self.recording {
            Some(commands) => {
                commands.push(command);
                Ok(())
            }
            None => self.carry_out(&command),
        }
    }

    fn carry_out(&self, command: &Command) -> Result<()> {
        match command {
            Command::Launch(launch) => run(launch),
            Command::Multiply(product) => {
                (0..product.batch).for_each(|n| self.multiply_one(product, n));
                Ok(())
            }
        }
    }

    /// # Panics
    /// If the bytes are not in one allocation.
    fn check(&self, from: Address, bytes: usize) {
        let inside = |block: &Vec<u128>| {
            let start = block.as_ptr() as Address;
            from >= start && from + bytes as Address <= start + 16 * block.len() as Address
        };
        assert!(self.memory.iter().any(inside), "{bytes} bytes at {from:#x} were never allocated");
    }

    fn multiply_one(&self, product: &Product, index: usize) {
        let Product { m, n, k, a, b, c, alpha, beta, .. } = *product;
        let a = self.view(a, [m, k], index);
        let b = self.view(b, [k, n], index);
        let place = self.place(c, [m, n], index);
        let shape = (m, n).strides((c.ld, 1));
        // SAFETY: checked to lie in one allocation; A and B are other places by the contract of a product
        let mut c = unsafe { ArrayViewMut2::from_shape_ptr(shape, place) };
        if beta == 0.0 {
            c.fill(0.0);
        }
        general_mat_mul(alpha, &a, &b, beta, &mut c);
    }

    fn place(&self, matrix: Matrix, [rows, columns]: [usize; 2], index: usize) -> *mut f32 {
        let start = matrix.at + 4 * (index * matrix.stride) as Address;
        let (rows, columns) = if matrix.transposed { (columns, rows) } else { (rows, columns) };
        assert!(matrix.ld >= columns, "rows of {columns} values are {} apart", matrix.ld);
        self.check(start, 4 * ((rows.max(1) - 1) * matrix.ld + columns));
        start as *mut f32
    }

    fn view(
        &self,
        matrix: Matrix,
        [rows, columns]: [usize; 2],
        index: usize,
    ) -> ArrayView2<'_, f32> {
        let place = self.place(matrix, [rows, columns], index);
        let strides = if matrix.transposed { (1, matrix.ld) } else { (matrix.ld, 1) };
        // SAFETY: checked to lie in one allocation
        unsafe { ArrayView2::from_shape_ptr((rows, columns).strides(strides), place) }
    }
}

fn run(launch: &Launch) -> Result<()> {
    let name = CString::new(launch.kernel).expect("a kernel's name has no zero byte");
    let mut arguments: Vec<*mut c_void> =
        launch.arguments.iter().map(|words| words.as_ptr().cast_mut().cast()).collect();
    let shared = u32::try_from(launch.shared).expect("shared memory is small");
    // SAFETY: the engine hands a kernel the arguments that it declares, at places that it allocated
    let status = unsafe {
        lipconv_emulated_launch(
            name.as_ptr(),
            launch.grid.as_ptr(),
            launch.threads,
            shared,
            arguments.as_mut_ptr(),
        )
    };
    if status == 0 {
        return Ok(());
    }
    Err(Error::Device {
        doing: "run a kernel",
        reason: format!("there is none of name {}", launch.kernel),
    })
}

impl Backend for Emulation {
    fn allocate(&mut self, bytes: usize) -> Result<Address> {
        let taken = self.memory.iter().map(|block| 16 * block.len()).sum::<usize>();
        if bytes > self.settings.memory.saturating_sub(taken) {
            let reason = format!("out of memory after {taken} bytes, {bytes} more are needed");
            return Err(Error::Device { doing: "allocate memory", reason });
        }
        self.memory.push(vec![0; bytes.div_ceil(16)]);
        Ok(self.memory[self.memory.len() - 1].as_ptr() as Address)
    }

    fn write(&mut self, to: Address, bytes: &[u8]) -> Result<()> {
        self.check(to, bytes.len());
        // SAFETY: checked to lie in one allocation of ours
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to as *mut u8, bytes.len()) };
        Ok(())
    }

    fn read(&mut self, from: Address, bytes: &mut [u8]) -> Result<()> {
        self.check(from, bytes.len());
        // SAFETY: checked to lie in one allocation of ours
        unsafe {
            std::ptr::copy_nonoverlapping(from as *const u8, bytes.as_mut_ptr(), bytes.len())
        };
        Ok(())
    }

    #[cfg(feature = "cuda")]
    fn copy(&mut self, from: Address, to: Address, bytes: usize) -> Result<()> {
        self.check(from, bytes);
        self.check(to, bytes);
        // SAFETY: checked to lie in allocations of ours
        unsafe { std::ptr::copy(from as *const u8, to as *mut u8, bytes) };
        Ok(())
    }

    fn launch(&mut self, launch: &Launch) -> Result<()> {
        self.give(Command::Launch(launch.clone()))
    }

    fn multiply(&mut self, _stream: usize, product: &Product) -> Result<()> {
        self.give(Command::Multiply(*product))
    }

    fn wait(&mut self, _stream: usize, _other: usize) -> Result<()> {
        Ok(())
    }

    fn begin_record(&mut self) -> Result<()> {
        self.recording = Some(Vec::new());
        Ok(())
    }

    fn end_record(&mut self) -> Result<usize> {
        let commands = self.recording.take().unwrap_or_default();
        if !self.settings.takes_graphs {
            let reason = "this emulated device records none".into();
            return Err(Error::Device { doing: "end a graph", reason });
        }
        self.graphs.push(commands);
        Ok(self.graphs.len() - 1)
    }

    fn replay(&mut self, graph: usize) -> Result<()> {
        self.graphs[graph].iter().try_for_each(|command| self.carry_out(command))
    }
}
