//! `cargo xtask cuda`: the `lipconv` command with the `cuda` feature, to run here or to carry to a machine with a GPU.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};

use crate::process::{find, read, run as run_child};
use crate::setup::{Environment, InstallOption};
use crate::workspace;

/// Where the toolkit may be told to be, in the order in which the kernels' build looks.
const TOOLKIT_VARIABLES: [&str; 4] =
    ["CUDA_PATH", "CUDA_HOME", "CUDA_ROOT", "CUDA_TOOLKIT_ROOT_DIR"];
/// The architecture to compile for, such as 90; without it the GPU of this machine is asked.
const ARCHITECTURE_VARIABLE: &str = "CUDA_COMPUTE_CAP";

/// Build the lipconv command for NVIDIA GPUs
///
/// Needs the CUDA toolkit (nvcc), but no GPU: without one, set CUDA_COMPUTE_CAP to the architecture to compile for (80
/// for A100, 90 for H100). Prints where the binary is and what the machine that runs it needs.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {}

pub(crate) fn run(_options: &Options, install: InstallOption) -> anyhow::Result<()> {
    let Some(compiler) = nvcc() else {
        bail!(
            "no CUDA toolkit: nvcc is neither on the PATH nor in the bin folder of {}; install the toolkit or set CUDA_PATH",
            TOOLKIT_VARIABLES.join(", ")
        );
    };
    if env::var_os(ARCHITECTURE_VARIABLE).is_none() && find("nvidia-smi").is_none() {
        bail!(
            "no GPU here to ask for its architecture: set {ARCHITECTURE_VARIABLE}, for example to 90 for an H100"
        );
    }
    let release = release(&read(Command::new(&compiler).arg("--version"))?)?;
    let metadata = workspace::metadata()?;
    if !has_cuda_feature(&metadata) {
        bail!("bench-apps has no cuda feature in this version: nothing to build for a GPU");
    }
    let environment = crate::setup::prepare(install.policy())?;
    let mut command = workspace::cargo("build");
    command.args(["--release", "--package", "bench-apps", "--features", "cuda"]);
    run_child(environment.apply(&mut command))?;
    println!("{}", advice(&binary(&metadata)?, &release));
    Ok(())
}

/// Checks that the `cuda` feature and the engine's kernels compile, where the toolkit is found; one line says so where it is not.
///
/// Without a GPU to ask, the kernels are compiled for the oldest architecture that the data centres still have.
pub(crate) fn check(environment: &Environment) -> anyhow::Result<()> {
    let Some(compiler) = nvcc() else {
        println!("skipped: no CUDA toolkit (nvcc) here, so the cuda feature is not compiled");
        return Ok(());
    };
    check_kernels(&compiler)?;
    let mut command = workspace::cargo("check");
    command.args(["--package", "lipconv", "--package", "bench-apps", "--features", "cuda"]);
    if env::var_os(ARCHITECTURE_VARIABLE).is_none() && find("nvidia-smi").is_none() {
        command.env(ARCHITECTURE_VARIABLE, "80");
    }
    run_child(environment.apply(&mut command))
}

/// The engine compiles its kernels at run time, all of them together; here the same is done ahead of that.
fn check_kernels(compiler: &Path) -> anyhow::Result<()> {
    let root = workspace::root();
    let folder = root.join("crates").join("lipconv").join("cuda");
    let files =
        fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut kernels: Vec<PathBuf> = files.flatten().map(|file| file.path()).collect();
    kernels.retain(|file| file.extension().is_some_and(|extension| extension == "cu"));
    kernels.sort();
    let source = root.join("target").join("kernels.cu");
    let text: String =
        kernels.iter().map(|file| format!("#include \"{}\"\n", file.display())).collect();
    fs::write(&source, text).with_context(|| format!("cannot write {}", source.display()))?;
    let mut command = Command::new(compiler);
    command.args(["-std=c++17", "-arch=compute_80", "-ptx", "-o"]);
    run_child(command.arg(source.with_extension("ptx")).arg(&source))
}

fn nvcc() -> Option<PathBuf> {
    let variables = TOOLKIT_VARIABLES.map(|name| env::var_os(name).map(PathBuf::from));
    compiler(find("nvcc"), &variables)
}

/// nvcc: on the PATH, or in the first toolkit folder that holds it.
fn compiler(on_path: Option<PathBuf>, toolkits: &[Option<PathBuf>]) -> Option<PathBuf> {
    let in_toolkits = toolkits.iter().flatten().map(|folder| folder.join("bin").join("nvcc"));
    on_path.into_iter().chain(in_toolkits).find(|path| path.is_file())
}

/// The toolkit's release, such as 13.0, from what nvcc says of itself.
fn release(version_text: &str) -> anyhow::Result<String> {
    let after = version_text.split("release ").nth(1).context("nvcc --version names no release")?;
    Ok(after.chars().take_while(|c| c.is_ascii_digit() || *c == '.').collect())
}

fn has_cuda_feature(metadata: &serde_json::Value) -> bool {
    let packages = metadata["packages"].as_array().map_or(&[][..], Vec::as_slice);
    packages
        .iter()
        .any(|package| package["name"] == "bench-apps" && !package["features"]["cuda"].is_null())
}

fn binary(metadata: &serde_json::Value) -> anyhow::Result<PathBuf> {
    let target = metadata["target_directory"]
        .as_str()
        .context("cargo metadata names no target directory")?;
    let name = format!("lipconv{}", env::consts::EXE_SUFFIX);
    Ok(Path::new(target).join("release").join(name))
}

fn advice(binary: &Path, release: &str) -> String {
    let major = release.split('.').next().unwrap_or(release);
    format!(
        "built: {}\n\
         The machine that runs it must have:\n\
         - an NVIDIA driver that supports CUDA {release} (nvidia-smi shows the newest release it supports)\n\
         - the runtime libraries of CUDA {major}: libcudart, libcublas, libcublasLt, libcurand, libnvrtc\n\
         - OpenBLAS (Debian: libopenblas0)",
        binary.display()
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const NVCC: &str =
        "nvcc: NVIDIA (R) Cuda compiler driver\nCuda compilation tools, release 13.0, V13.0.88\n";

    #[test]
    fn the_release_is_read() {
        assert_eq!(release(NVCC).unwrap(), "13.0");
        assert_eq!(release("nothing").unwrap_err().to_string(), "nvcc --version names no release");
    }

    #[test]
    fn the_compiler_must_be_there() {
        let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
        let manifest = here.join("Cargo.toml");
        assert_eq!(compiler(Some(manifest.clone()), &[]), Some(manifest));
        assert_eq!(compiler(None, &[None, Some(here)]), None);
    }

    #[test]
    fn the_feature_is_looked_for_in_the_right_package() {
        let with = |name: &str| json!({"packages": [{"name": name, "features": {"cuda": ["lipconv/cuda"]}}]});
        assert!(has_cuda_feature(&with("bench-apps")));
        assert!(!has_cuda_feature(&with("lipconv")));
        assert!(!has_cuda_feature(&json!({"packages": [{"name": "bench-apps", "features": {}}]})));
    }

    #[test]
    fn the_advice_names_binary_and_release() {
        let binary = binary(&json!({"target_directory": "target"})).unwrap();
        let text = advice(&binary, "13.0");
        assert!(
            text.contains("lipconv")
                && text.contains("supports CUDA 13.0")
                && text.contains("of CUDA 13:"),
            "{text}"
        );
    }
}
