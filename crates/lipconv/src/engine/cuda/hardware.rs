//! A CUDA device: kernels compiled at run time for it, products by cuBLAS in full single precision, steps as CUDA graphs.
//!
//! Every stream has a cuBLAS handle and a workspace of its own, so that products on different streams do not share memory and a graph
//! holds no allocation.

#![expect(unsafe_code, reason = "the driver's functions")]

use std::collections::{BTreeMap, HashMap};
use std::ffi::{CString, c_int, c_void};
use std::fmt::Display;
use std::sync::{Mutex, PoisonError};

use cudarc::cublas::{result as blas, sys as blas_sys};
use cudarc::driver::{result as driver, sys};
use cudarc::nvrtc;

use super::backend::{Address, Backend, Launch, Matrix, Product};
use crate::error::{Error, Result};

/// The kernels, each file once.
const SOURCES: [&str; 10] = [
    include_str!("../../../cuda/portable.h"),
    include_str!("../../../cuda/activation.cu"),
    include_str!("../../../cuda/chain.cu"),
    include_str!("../../../cuda/convolution.cu"),
    include_str!("../../../cuda/loss.cu"),
    include_str!("../../../cuda/polar.cu"),
    include_str!("../../../cuda/projector.cu"),
    include_str!("../../../cuda/quotient.cu"),
    include_str!("../../../cuda/tensors.cu"),
    include_str!("../../../cuda/training.cu"),
];
/// Bytes that cuBLAS may use on each stream: what it recommends for Hopper.
const WORKSPACE: usize = 32 << 20;
/// Dynamic shared memory that needs no permission.
const PLAIN_SHARED: usize = 48 << 10;

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Hardware {
    context: sys::CUcontext,
    module: sys::CUmodule,
    functions: HashMap<&'static str, sys::CUfunction>,
    streams: Vec<Stream>,
    memory: Vec<Address>,
    /// Bytes of it.
    taken: usize,
    graphs: Vec<sys::CUgraphExec>,
    events: Vec<sys::CUevent>,
    /// Shared memory that a block may have.
    max_shared: usize,
}

#[derive(Debug)]
struct Stream {
    stream: sys::CUstream,
    blas: blas_sys::cublasHandle_t,
}

// SAFETY: the driver's handles may be used from any thread, and every method makes the context current first
unsafe impl Send for Hardware {}

fn failed<E: Display>(doing: &'static str) -> impl FnOnce(E) -> Error {
    move |error| Error::Device { doing, reason: error.to_string() }
}

impl Hardware {
    /// The device of this number, with `n_streams` streams.
    ///
    /// # Errors
    /// [`Error::Device`] when there is none, or its driver does not take what was compiled.
    pub(super) fn new(ordinal: usize, n_streams: usize) -> Result<Self> {
        driver::init().map_err(failed("start the driver"))?;
        let ordinal = c_int::try_from(ordinal).unwrap_or(c_int::MAX);
        let device = driver::device::get(ordinal).map_err(failed("find the device"))?;
        // SAFETY: the device was just given by the driver
        let context =
            unsafe { driver::primary_ctx::retain(device) }.map_err(failed("use the device"))?;
        // SAFETY: the context was just given by the driver
        unsafe { driver::ctx::set_current(context) }.map_err(failed("use the device"))?;
        let attribute = |which| {
            // SAFETY: as above
            unsafe { driver::device::get_attribute(device, which) }
                .map_err(failed("ask the device"))
        };
        let major =
            attribute(sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?;
        let minor =
            attribute(sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?;
        let max_shared = attribute(
            sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN,
        )?;
        let module = module_of(ordinal, &format!("compute_{major}{minor}"))?;
        let mut hardware = Self {
            context,
            module,
            functions: HashMap::new(),
            streams: Vec::new(),
            memory: Vec::new(),
            taken: 0,
            graphs: Vec::new(),
            events: Vec::new(),
            max_shared: usize::try_from(max_shared).unwrap_or(PLAIN_SHARED),
        };
        for _ in 0..n_streams {
            let stream = hardware.stream()?;
            hardware.streams.push(stream);
        }
        Ok(hardware)
    }

    fn stream(&mut self) -> Result<Stream> {
        let stream = driver::stream::create(driver::stream::StreamKind::NonBlocking)
            .map_err(failed("make a stream"))?;
        let workspace = self.allocate(WORKSPACE)?;
        let handle = blas::create_handle().map_err(failed("start cuBLAS"))?;
        // SAFETY: handle and stream were just made; the workspace lives as long as the handle
        unsafe {
            blas::set_stream(handle, stream.cast()).map_err(failed("start cuBLAS"))?;
            blas_sys::cublasSetWorkspace_v2(handle, workspace as *mut c_void, WORKSPACE)
                .result()
                .map_err(failed("start cuBLAS"))?;
            // no TF32, whatever the environment says
            blas_sys::cublasSetMathMode(handle, blas_sys::cublasMath_t::CUBLAS_DEFAULT_MATH)
                .result()
                .map_err(failed("start cuBLAS"))?;
        }
        Ok(Stream { stream, blas: handle })
    }

    fn function(&mut self, name: &'static str, shared: usize) -> Result<sys::CUfunction> {
        let function = match self.functions.get(name) {
            Some(&function) => function,
            None => {
                let text = CString::new(name).expect("a kernel's name has no zero byte");
                // SAFETY: the module lives as long as this
                let function = unsafe { driver::module::get_function(self.module, text) };
                let function = function.map_err(failed("find a kernel"))?;
                self.functions.insert(name, function);
                function
            }
        };
        if shared > PLAIN_SHARED {
            let attribute =
                sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            let bytes = c_int::try_from(shared).unwrap_or(c_int::MAX);
            // SAFETY: the function was given by the driver
            unsafe { driver::function::set_function_attribute(function, attribute, bytes) }
                .map_err(failed("use shared memory"))?;
        }
        Ok(function)
    }

    fn synchronize(&mut self) -> Result<()> {
        self.current()?;
        // SAFETY: the streams live as long as this
        self.streams
            .iter()
            .try_for_each(|s| unsafe { driver::stream::synchronize(s.stream) })
            .map_err(failed("wait for the device"))?;
        // all that waited for them is done; never while a graph is recorded
        for event in self.events.drain(..) {
            // SAFETY: the events are ours
            let _ = unsafe { driver::event::destroy(event) };
        }
        Ok(())
    }

    fn current(&self) -> Result<()> {
        // SAFETY: the context is held until this is dropped
        unsafe { driver::ctx::set_current(self.context) }.map_err(failed("use the device"))
    }
}

/// The kernels of every device that this process has used, by its number. Compiling takes seconds, and a device's primary context
/// lives as long as the process.
static MODULES: Mutex<BTreeMap<c_int, Module>> = Mutex::new(BTreeMap::new());

#[derive(Clone, Copy)]
struct Module(sys::CUmodule);

// SAFETY: a handle of the driver, which any thread may use
unsafe impl Send for Module {}

/// The kernels on a device whose context is current.
fn module_of(ordinal: c_int, architecture: &str) -> Result<sys::CUmodule> {
    let mut modules = MODULES.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(&Module(module)) = modules.get(&ordinal) {
        return Ok(module);
    }
    let image = CString::new(compile(architecture)?).map_err(failed("load the kernels"))?;
    // SAFETY: a zero-terminated text, which the driver checks
    let module = unsafe { driver::module::load_data(image.as_ptr().cast()) };
    let module = module.map_err(failed("load the kernels"))?;
    modules.insert(ordinal, Module(module));
    Ok(module)
}

/// The kernels as PTX by the architecture that they were compiled for, which takes seconds.
static PTX: Mutex<BTreeMap<String, String>> = Mutex::new(BTreeMap::new());

/// The kernels as PTX for an architecture, compiled once in a process.
pub(super) fn compile(architecture: &str) -> Result<String> {
    let mut compiled = PTX.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(ptx) = compiled.get(architecture) {
        return Ok(ptx.clone());
    }
    let without_include =
        |source: &str| source.replace("#include \"portable.h\"", "").replace("#pragma once", "");
    let source: String = SOURCES.iter().map(|source| without_include(source)).collect();
    let options = nvrtc::CompileOptions {
        options: vec![format!("--gpu-architecture={architecture}"), "--std=c++17".into()],
        ..Default::default()
    };
    let ptx = nvrtc::compile_ptx_with_opts(source, options)
        .map_err(|e| Error::Device { doing: "compile the kernels", reason: format!("{e:?}") })?
        .to_src();
    compiled.insert(architecture.to_owned(), ptx.clone());
    Ok(ptx)
}

/// Waits for what clears and copies, for which the engine's streams do not wait. Not for the whole context: that fails while another engine
/// of this process records a graph.
fn default_stream_done() -> std::result::Result<(), driver::DriverError> {
    // SAFETY: the default stream always exists
    unsafe { driver::stream::synchronize(std::ptr::null_mut()) }
}

/// A row-major matrix is the transpose of a column-major one.
fn operation(matrix: Matrix) -> blas_sys::cublasOperation_t {
    match matrix.transposed {
        true => blas_sys::cublasOperation_t::CUBLAS_OP_T,
        false => blas_sys::cublasOperation_t::CUBLAS_OP_N,
    }
}

fn int(n: usize) -> c_int {
    c_int::try_from(n).expect("a size is planned to fit 31 bits")
}

impl Backend for Hardware {
    fn allocate(&mut self, bytes: usize) -> Result<Address> {
        self.current()?;
        let bytes = bytes.max(16);
        // SAFETY: memory of ours, freed when this is dropped
        unsafe {
            let address = driver::malloc_sync(bytes).map_err(|error| {
                let taken = self.taken;
                let reason = format!("{error} after {taken} bytes, {bytes} more are needed");
                Error::Device { doing: "allocate memory", reason }
            })?;
            self.taken += bytes;
            self.memory.push(address);
            driver::memset_d8_sync(address, 0, bytes).map_err(failed("clear memory"))?;
            default_stream_done().map_err(failed("clear memory"))?;
            Ok(address)
        }
    }

    fn write(&mut self, to: Address, bytes: &[u8]) -> Result<()> {
        self.synchronize()?;
        // SAFETY: the engine writes what it allocated
        unsafe { driver::memcpy_htod_sync(to, bytes) }.map_err(failed("copy to the device"))?;
        // The call returns when the values have left the host's memory: without this a graph may read what was there before.
        default_stream_done().map_err(failed("copy to the device"))
    }

    fn read(&mut self, from: Address, bytes: &mut [u8]) -> Result<()> {
        self.synchronize()?;
        // SAFETY: the engine reads what it allocated
        unsafe { driver::memcpy_dtoh_sync(bytes, from) }.map_err(failed("copy from the device"))
    }

    #[cfg(feature = "cuda")]
    fn copy(&mut self, from: Address, to: Address, bytes: usize) -> Result<()> {
        self.current()?;
        let stream = self.streams[0].stream;
        // SAFETY: the caller has a tensor of `bytes` bytes at `from`, and waits for the copy before it gives that up
        unsafe { driver::memcpy_dtod_async(to, from, bytes, stream) }
            .map_err(failed("copy on the device"))
    }

    fn launch(&mut self, launch: &Launch) -> Result<()> {
        self.current()?;
        if launch.shared > self.max_shared {
            let reason = format!(
                "{} needs {} bytes of shared memory, the device has {}",
                launch.kernel, launch.shared, self.max_shared
            );
            return Err(Error::Device { doing: "run a kernel", reason });
        }
        let function = self.function(launch.kernel, launch.shared)?;
        let mut arguments: Vec<*mut c_void> =
            launch.arguments.iter().map(|words| words.as_ptr().cast_mut().cast()).collect();
        let [x, y, z] = launch.grid;
        let shared = u32::try_from(launch.shared).expect("checked above");
        let stream = self.streams[launch.stream].stream;
        // SAFETY: the engine hands a kernel the arguments that it declares, at places that it allocated
        unsafe {
            driver::launch_kernel(
                function,
                (x, y, z),
                (launch.threads, 1, 1),
                shared,
                stream,
                &mut arguments,
            )
        }
        .map_err(failed("run a kernel"))
    }

    fn multiply(&mut self, stream: usize, product: &Product) -> Result<()> {
        self.current()?;
        let Product { m, n, k, a, b, c, alpha, beta, batch } = *product;
        let handle = self.streams[stream].blas;
        let (alpha, beta): (*const f32, *const f32) = (&raw const alpha, &raw const beta);
        // SAFETY: the engine multiplies what it allocated; Cᵗ = Bᵗ Aᵗ in column-major order
        unsafe {
            blas::sgemm_strided_batched(
                handle,
                operation(b),
                operation(a),
                int(n),
                int(m),
                int(k),
                alpha,
                b.at as *const f32,
                int(b.ld),
                b.stride as i64,
                a.at as *const f32,
                int(a.ld),
                a.stride as i64,
                beta,
                c.at as *mut f32,
                int(c.ld),
                c.stride as i64,
                int(batch),
            )
        }
        .map_err(|e| Error::Device { doing: "multiply matrices", reason: format!("{e:?}") })
    }

    fn wait(&mut self, stream: usize, other: usize) -> Result<()> {
        self.current()?;
        let flags = sys::CUevent_flags::CU_EVENT_DISABLE_TIMING;
        let event = driver::event::create(flags).map_err(failed("make an event"))?;
        self.events.push(event);
        let (stream, other) = (self.streams[stream].stream, self.streams[other].stream);
        // SAFETY: streams and events live as long as this
        unsafe {
            driver::event::record(event, other).map_err(failed("record an event"))?;
            let flags = sys::CUevent_wait_flags::CU_EVENT_WAIT_DEFAULT;
            driver::stream::wait_event(stream, event, flags).map_err(failed("wait for an event"))
        }
    }

    fn begin_record(&mut self) -> Result<()> {
        self.current()?;
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        // SAFETY: the stream lives as long as this
        unsafe { driver::stream::begin_capture(self.streams[0].stream, mode) }
            .map_err(failed("begin a graph"))
    }

    fn end_record(&mut self) -> Result<usize> {
        self.current()?;
        // SAFETY: the stream lives as long as this, and the graph until it is destroyed
        unsafe {
            let graph = driver::stream::end_capture(self.streams[0].stream)
                .map_err(failed("end a graph"))?;
            let executable = driver::graph::instantiate(graph, sys::CUgraphInstantiate_flags(0));
            let destroyed = driver::graph::destroy(graph);
            self.graphs.push(executable.map_err(failed("prepare a graph"))?);
            destroyed.map_err(failed("prepare a graph"))?;
        }
        Ok(self.graphs.len() - 1)
    }

    fn replay(&mut self, graph: usize) -> Result<()> {
        self.current()?;
        // SAFETY: graph and stream live as long as this
        unsafe { driver::graph::launch(self.graphs[graph], self.streams[0].stream) }
            .map_err(failed("run a graph"))
    }
}

impl Drop for Hardware {
    fn drop(&mut self) {
        // what cannot be given back goes with the process
        let _ = self.synchronize();
        // SAFETY: all of these are ours, and nothing runs any more
        unsafe {
            for graph in self.graphs.drain(..) {
                let _ = driver::graph::exec_destroy(graph);
            }
            for event in self.events.drain(..) {
                let _ = driver::event::destroy(event);
            }
            for Stream { stream, blas } in self.streams.drain(..) {
                let _ = blas::destroy_handle(blas);
                let _ = driver::stream::destroy(stream);
            }
            for address in self.memory.drain(..) {
                let _ = driver::free_sync(address);
            }
        }
    }
}
