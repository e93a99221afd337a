//! Package managers: which one the machine has, what the packages are called there, and how they are installed.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::process::{find, run};

/// Where apt-get keeps the lists of packages; container images come with none.
const APT_LISTS: &str = "/var/lib/apt/lists";

/// Something that the machine must have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// A C compiler, with which cargo links.
    CCompiler,
    /// OpenBLAS with LAPACK.
    OpenBlas,
}

impl Need {
    /// How messages call it.
    pub(crate) fn description(self) -> &'static str {
        match self {
            Self::CCompiler => "a C compiler (cc)",
            Self::OpenBlas => "OpenBLAS with LAPACK",
        }
    }
}

/// Whether, and how, this process may install.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Privilege {
    /// As it is.
    Direct,
    /// Through sudo, which asks no password.
    Sudo,
    /// Not at all.
    Denied,
}

/// A package manager that we know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PackageManager {
    /// Debian, Ubuntu.
    Apt,
    /// Fedora, Red Hat.
    Dnf,
    /// Arch.
    Pacman,
    /// macOS.
    Brew,
}

impl PackageManager {
    /// The first one whose program is on the PATH.
    pub(crate) fn of_this_machine() -> Option<Self> {
        Self::first_found(|program| find(program).is_some())
    }

    fn first_found(found: impl Fn(&str) -> bool) -> Option<Self> {
        [Self::Apt, Self::Dnf, Self::Pacman, Self::Brew]
            .into_iter()
            .find(|manager| found(manager.program()))
    }

    fn program(self) -> &'static str {
        match self {
            Self::Apt => "apt-get",
            Self::Dnf => "dnf",
            Self::Pacman => "pacman",
            Self::Brew => "brew",
        }
    }

    fn packages(self, needs: &[Need]) -> Vec<&'static str> {
        let of = |need| match (self, need) {
            (Self::Apt, Need::CCompiler) => &["build-essential"][..],
            (Self::Apt, Need::OpenBlas) => &["libopenblas-dev", "pkg-config"],
            (Self::Dnf, Need::CCompiler) => &["gcc"],
            (Self::Dnf, Need::OpenBlas) => &["openblas-devel", "pkgconf"],
            (Self::Pacman, Need::CCompiler) => &["gcc"],
            (Self::Pacman, Need::OpenBlas) => &["openblas", "pkgconf"],
            (Self::Brew, Need::CCompiler) => &["gcc"],
            // the build script of the OpenBLAS bindings asks brew for libomp too
            (Self::Brew, Need::OpenBlas) => &["openblas", "libomp"],
        };
        needs.iter().flat_map(|&need| of(need)).copied().collect()
    }

    fn install_arguments(self) -> &'static [&'static str] {
        match self {
            Self::Apt => &["install", "-y", "--no-install-recommends"],
            Self::Dnf => &["install", "-y"],
            Self::Pacman => &["-S", "--needed", "--noconfirm"],
            Self::Brew => &["install"],
        }
    }

    /// Whether this process may install with this manager.
    pub(crate) fn privilege(self) -> Privilege {
        let root = || answers("id", &["-u"], |answer| answer.trim() == "0");
        let sudo = || answers("sudo", &["-n", "true"], |_| true);
        match self {
            // brew belongs to the user, and refuses to run as root
            Self::Brew => Privilege::Direct,
            _ if root() => Privilege::Direct,
            _ if sudo() => Privilege::Sudo,
            _ => Privilege::Denied,
        }
    }

    /// The line for a person without a root shell.
    pub(crate) fn line_to_type(self, needs: &[Need]) -> String {
        let privilege = if self == Self::Brew { Privilege::Direct } else { Privilege::Sudo };
        let line = self.line_to_run(needs, privilege);
        if self == Self::Apt { format!("sudo apt-get update && {line}") } else { line }
    }

    /// The line that [`PackageManager::install`] runs.
    pub(crate) fn line_to_run(self, needs: &[Need], privilege: Privilege) -> String {
        let words = self.install_arguments().iter().copied().chain(self.packages(needs));
        let line = std::iter::once(self.program()).chain(words).collect::<Vec<_>>().join(" ");
        if privilege == Privilege::Sudo { format!("sudo {line}") } else { line }
    }

    /// Installs; apt-get first fetches its lists when it has none, and fetches them again when they prove stale.
    pub(crate) fn install(self, needs: &[Need], privilege: Privilege) -> anyhow::Result<()> {
        if self != Self::Apt {
            return self.install_once(needs, privilege);
        }
        let updated = !has_lists(Path::new(APT_LISTS));
        if updated {
            self.update(privilege)?;
        }
        match self.install_once(needs, privilege) {
            Err(_) if !updated => {
                self.update(privilege)?;
                self.install_once(needs, privilege)
            }
            outcome => outcome,
        }
    }

    fn install_once(self, needs: &[Need], privilege: Privilege) -> anyhow::Result<()> {
        run(self.command(privilege).args(self.install_arguments()).args(self.packages(needs)))
    }

    fn update(self, privilege: Privilege) -> anyhow::Result<()> {
        run(self.command(privilege).arg("update"))
    }

    fn command(self, privilege: Privilege) -> Command {
        let mut command = if privilege == Privilege::Sudo {
            let mut sudo = Command::new("sudo");
            // through env, because sudo may drop the variables of its caller
            sudo.args(["-n", "env", "DEBIAN_FRONTEND=noninteractive", self.program()]);
            sudo
        } else {
            Command::new(self.program())
        };
        command.env("DEBIAN_FRONTEND", "noninteractive").stdin(Stdio::null());
        command
    }
}

/// Whether the program ends well and its answer is the wanted one.
fn answers(program: &str, arguments: &[&str], wanted: impl Fn(&str) -> bool) -> bool {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output();
    output.is_ok_and(|output| {
        output.status.success() && wanted(&String::from_utf8_lossy(&output.stdout))
    })
}

/// Whether the folder holds a list of packages.
fn has_lists(folder: &Path) -> bool {
    let Ok(mut entries) = fs::read_dir(folder) else { return false };
    entries.any(|entry| {
        entry.is_ok_and(|entry| entry.file_name().to_string_lossy().contains("_Packages"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: [Need; 2] = [Need::CCompiler, Need::OpenBlas];

    #[test]
    fn the_first_manager_found_is_taken() {
        assert_eq!(PackageManager::first_found(|_| true), Some(PackageManager::Apt));
        assert_eq!(
            PackageManager::first_found(|program| program == "dnf"),
            Some(PackageManager::Dnf)
        );
        assert_eq!(
            PackageManager::first_found(|program| program == "brew"),
            Some(PackageManager::Brew)
        );
        assert_eq!(PackageManager::first_found(|_| false), None);
    }

    #[test]
    fn the_line_to_type_is_whole() {
        let line = |manager: PackageManager, needs: &[Need]| manager.line_to_type(needs);
        assert_eq!(
            line(PackageManager::Apt, &[Need::OpenBlas]),
            "sudo apt-get update && sudo apt-get install -y --no-install-recommends libopenblas-dev pkg-config"
        );
        assert_eq!(
            line(PackageManager::Dnf, &BOTH),
            "sudo dnf install -y gcc openblas-devel pkgconf"
        );
        assert_eq!(
            line(PackageManager::Pacman, &[Need::OpenBlas]),
            "sudo pacman -S --needed --noconfirm openblas pkgconf"
        );
        assert_eq!(line(PackageManager::Brew, &[Need::OpenBlas]), "brew install openblas libomp");
    }

    #[test]
    fn root_needs_no_sudo() {
        let line = PackageManager::Apt.line_to_run(&BOTH, Privilege::Direct);
        assert_eq!(
            line,
            "apt-get install -y --no-install-recommends build-essential libopenblas-dev pkg-config"
        );
    }

    #[test]
    fn an_answer_must_be_good_and_wanted() {
        assert!(answers("cargo", &["--version"], |answer| answer.starts_with("cargo")));
        assert!(!answers("cargo", &["--version"], |_| false));
        assert!(!answers("cargo", &["no-such-subcommand"], |_| true));
        assert!(!answers("a-program-that-nobody-has", &[], |_| true));
    }

    #[test]
    fn a_folder_without_package_lists_needs_an_update() {
        assert!(!has_lists(Path::new("a/folder/that/is/not/there")));
        assert!(!has_lists(Path::new(env!("CARGO_MANIFEST_DIR"))));
    }
}
