//! A predictor's later calls allocate nothing on their thread, but a batch its result.

#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up fails")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use candle_core::{DType, Device, Tensor};
use certify::{Arithmetic, Predictor};
use lipconv::{ImageShape, Methods, Network, NetworkSpec};

thread_local! {
    static ALLOCATED: Cell<usize> = const { Cell::new(0) };
}

/// The system's allocator, with a count of this thread's requests.
struct Counting;

#[expect(unsafe_code, reason = "an allocator's methods are unsafe; these hand everything on")]
// SAFETY: every call goes to the system's allocator with the arguments as they came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATED.with(|count| count.set(count.get() + 1));
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATED.with(|count| count.set(count.get() + 1));
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn allocations(work: impl FnOnce()) -> usize {
    let before = ALLOCATED.with(Cell::get);
    work();
    ALLOCATED.with(Cell::get) - before
}

#[test]
fn later_calls_allocate_nothing() {
    let spec = NetworkSpec::small(ImageShape::new(1, 28, 28), 10, Methods::BCOP);
    let network = Network::new(&spec, DType::F32, &Device::Cpu, 0).unwrap().materialize().unwrap();
    let predictor = Predictor::new(&network, Arithmetic::F32).unwrap();
    let pixels: Vec<f32> = (0..784).map(|i| (i * 7919 % 256) as f32 / 255.0).collect();
    let predict = || {
        let found = predictor.predict(&pixels).unwrap();
        assert!(found.radius > 0.0, "the path to a radius is not taken: {found:?}");
    };
    // the buffers change places in a network with an odd number of layers
    (0..4).for_each(|_| predict());
    assert_eq!(allocations(predict), 0);
    // that the count counts
    assert!(allocations(|| drop(Tensor::zeros(8, DType::F32, &Device::Cpu).unwrap())) > 0);
}
