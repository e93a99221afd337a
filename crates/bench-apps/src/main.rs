//! The `lipconv` command.

// training allocates and frees the same large buffers at every step; this allocator keeps them
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    bench_apps::cli::main()
}
