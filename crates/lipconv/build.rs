//! Compiles the kernels of the CUDA engine as C++ when the feature `cuda-emulation` asks for them.

fn main() {
    println!("cargo::rerun-if-changed=cuda");
    println!("cargo::rerun-if-env-changed=LIPCONV_SANITIZE");
    #[cfg(feature = "cuda-emulation")]
    compile();
}

#[cfg(feature = "cuda-emulation")]
fn compile() {
    let mut build = cc::Build::new();
    build.cpp(true).std("c++17").file("cuda/emulation.cpp").define("LIPCONV_EMULATION", None);
    build.opt_level(2).flag_if_supported("-Wno-unused-parameter");
    // of getcontext, which returns twice
    build.flag_if_supported("-Wno-maybe-uninitialized");
    // such as LIPCONV_SANITIZE=address,undefined
    if let Ok(sanitizers) = std::env::var("LIPCONV_SANITIZE") {
        let flag = format!("-fsanitize={sanitizers}");
        build.flag(&flag).flag("-fno-sanitize-recover=all").flag("-g");
        // their runtimes, which rustc does not ask the linker for
        for (name, library) in [("address", "asan"), ("undefined", "ubsan")] {
            if sanitizers.contains(name) {
                println!("cargo::rustc-link-arg=-l{library}");
            }
        }
    }
    build.compile("lipconv_emulation");
}
