//! Debian's own kernels: which there are, and how to get one without touching the machine's apt.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use crate::run;

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Where Debian's standard configuration points, for machines that configure no Debian mirror.
const STANDARD_MIRROR: &str = "http://deb.debian.org/debian";

/// A kernel that is tried, and the suite that holds it.
pub struct Kernel {
    /// Its version as Debian's package names begin.
    pub name: &'static str,
    suite: &'static str,
}

/// The kernels that are tried.
pub const KERNELS: [Kernel; 4] = [
    Kernel { name: "5.10", suite: "bullseye" },
    Kernel { name: "6.1", suite: "bookworm" },
    Kernel { name: "6.12", suite: "trixie" },
    Kernel { name: "7.2", suite: "forky" },
];

/// Their names.
pub fn names() -> Vec<&'static str> {
    KERNELS.iter().map(|kernel| kernel.name).collect()
}

/// The kernel's image under `target/vm/`, downloaded if it is not there yet.
pub fn image(kernel: &Kernel) -> Result<PathBuf> {
    let folder = run::target_dir().join("vm").join(kernel.name);
    let unpacked = folder.join("unpacked");
    if let Some(image) = image_in(&unpacked) {
        return Ok(image);
    }
    let apt = Apt::new(&folder, kernel.suite)?;
    run::run(apt.command("apt-get").args(["-q", "update"]))?;
    let package = apt.newest(kernel.name)?;
    run::run(apt.command("apt-get").args(["-q", "download", &package]).current_dir(&folder))?;
    let archive = entries(&folder)
        .into_iter()
        .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .with_context(|| format!("apt-get downloaded no package into {}", folder.display()))?;
    run::run(Command::new("dpkg").arg("-x").arg(&archive).arg(&unpacked))?;
    fs::remove_file(&archive).with_context(|| format!("cannot remove {}", archive.display()))?;
    image_in(&unpacked).with_context(|| format!("{package} holds no kernel image"))
}

/// The image: `/boot/vmlinuz-VERSION`, or beside its modules since 7.2.
fn image_in(unpacked: &Path) -> Option<PathBuf> {
    let modules = entries(&unpacked.join("usr/lib/modules"));
    let folders = modules.into_iter().chain([unpacked.join("boot")]);
    folders.flat_map(|folder| entries(&folder)).find(|path| {
        path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("vmlinuz"))
    })
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

/// An apt with lists of its own; proxies and the like are the machine's.
struct Apt {
    options: Vec<String>,
}

impl Apt {
    fn new(folder: &Path, suite: &str) -> Result<Self> {
        let apt = folder.join("apt");
        for part in ["state/lists/partial", "cache/archives/partial"] {
            let part = apt.join(part);
            fs::create_dir_all(&part).with_context(|| format!("cannot make {}", part.display()))?;
        }
        let list = apt.join("sources.list");
        let line = format!("deb [signed-by={KEYRING}] {} {suite} main\n", mirror());
        fs::write(&list, line).with_context(|| format!("cannot write {}", list.display()))?;
        let options = vec![
            format!("Dir::Etc::SourceList={}", list.display()),
            "Dir::Etc::SourceParts=/dev/null".to_owned(),
            format!("Dir::State={}", apt.join("state").display()),
            "Dir::State::Status=/dev/null".to_owned(),
            format!("Dir::Cache={}", apt.join("cache").display()),
            // Of no use here, and a third of the download where a package configured it.
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false".to_owned(),
            // Its unprivileged user need not be able to write here.
            "APT::Sandbox::User=root".to_owned(),
        ];
        Ok(Self { options })
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        for option in &self.options {
            command.args(["-o", option]);
        }
        command
    }

    fn newest(&self, version: &str) -> Result<String> {
        let pattern = format!("^linux-(image|binary)-{}\\.", version.replace('.', "\\."));
        let mut search = self.command("apt-cache");
        let found = run::output(search.args(["search", "--names-only", &pattern]))?;
        newest_of(&found)
            .with_context(|| format!("no linux-image-{version}*-cloud-amd64 in its suite"))
    }
}

/// The signed cloud kernel with the highest version among the lines of `apt-cache search`. Since
/// 7.2 linux-image is empty and the kernel is in linux-binary.
fn newest_of(found: &str) -> Option<String> {
    found
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .filter(|package| package.ends_with("-cloud-amd64"))
        .max_by_key(|package| (numbers(package), package.starts_with("linux-binary-")))
        .map(str::to_owned)
}

fn numbers(package: &str) -> Vec<u64> {
    package.split(|c: char| !c.is_ascii_digit()).filter_map(|part| part.parse().ok()).collect()
}

/// The Debian mirror that this machine uses.
fn mirror() -> String {
    let mut files = vec![PathBuf::from("/etc/apt/sources.list")];
    files.extend(entries(Path::new("/etc/apt/sources.list.d")));
    files.sort();
    files
        .iter()
        .filter_map(|file| fs::read_to_string(file).ok())
        .find_map(|text| mirror_in(&text))
        .unwrap_or_else(|| STANDARD_MIRROR.to_owned())
}

/// The first address in a sources file, of either format, that is a whole Debian archive.
fn mirror_in(text: &str) -> Option<String> {
    text.lines()
        .filter(|line| line.starts_with("deb ") || line.starts_with("URIs:"))
        .flat_map(str::split_whitespace)
        .map(|word| word.trim_end_matches('/'))
        .find(|word| word.contains("://") && word.ends_with("/debian"))
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_formats_of_sources_name_the_mirror() {
        #[track_caller]
        fn check(text: &str, expected: Option<&str>) {
            assert_eq!(mirror_in(text).as_deref(), expected);
        }
        check(
            "Types: deb\nURIs: http://m.example/debian\nSuites: a\n",
            Some("http://m.example/debian"),
        );
        check(
            "# deb http://no/debian a\ndeb [arch=amd64] ftp://m/debian/ a main",
            Some("ftp://m/debian"),
        );
        check("URIs: http://m.example/debian-security", None);
    }

    #[test]
    fn the_newest_signed_cloud_kernel_is_taken() {
        #[track_caller]
        fn check(found: &str, expected: Option<&str>) {
            assert_eq!(newest_of(found).as_deref(), expected);
        }
        check(
            "linux-image-6.1.0-9-cloud-amd64 - x\nlinux-image-6.1.0-41-cloud-amd64 - x\n\
             linux-image-6.1.0-42-cloud-amd64-unsigned - x\nlinux-image-6.1.0-43-amd64 - x",
            Some("linux-image-6.1.0-41-cloud-amd64"),
        );
        check(
            "linux-binary-7.2.12+deb14-cloud-amd64 - x\nlinux-image-7.2.12+deb14-cloud-amd64 - x",
            Some("linux-binary-7.2.12+deb14-cloud-amd64"),
        );
        check("", None);
    }
}
