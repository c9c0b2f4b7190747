//! In which places a module's names are found, and which files are passed over.

use std::{
    fs::{self, File},
    io::{Read as _, Seek as _, SeekFrom, Write as _},
    os::fd::AsRawFd as _,
    path::{Path, PathBuf},
};

use super::{Workshop, check, debug_dir, live, module, resolve_one, symbol};
use crate::{
    recording::{Missing, Module, ResolvedName},
    symbols::{LiveFiles, SymbolOptions},
    unwind::elf,
};

/// Where a debugger looks for debug information by build-id.
fn build_id_path(module: &Module) -> PathBuf {
    let hex: Vec<String> = module.build_id.iter().map(|byte| format!("{byte:02x}")).collect();
    PathBuf::from(format!(".build-id/{}/{}.debug", hex[0], hex[1..].concat()))
}

fn move_to(from: &Path, to: &Path) {
    fs::create_dir_all(to.parent().unwrap()).unwrap();
    fs::rename(from, to).unwrap();
}

/// A stripped `inline`, its debug information in `inline.debug`, and the address of `outer`.
struct Split {
    workshop: Workshop,
    module: Module,
    debug: PathBuf,
    address: u64,
}

impl Split {
    fn new(args: &[&str]) -> Self {
        let workshop = Workshop::new();
        let file = workshop.inline(args);
        let address = symbol(&file, "outer").start;
        workshop.run("objcopy", ["--only-keep-debug", "inline", "inline.debug"]);
        workshop.run("objcopy", ["--strip-all", "--add-gnu-debuglink=inline.debug", "inline"]);
        let debug = workshop.path("inline.debug");
        Self { module: module(&file), workshop, debug, address }
    }

    fn check(&self, live: &LiveFiles, options: &SymbolOptions, expected: Result<&str, Missing>) {
        check(self.module.clone(), live, options, self.address, expected);
        if expected.is_ok() {
            let name = resolve_one(self.module.clone(), live, options, self.address);
            let ResolvedName::Frames(frames) = name else { unreachable!("checked above") };
            assert!(frames[0].file.as_ref().is_some_and(|file| file.ends_with("inline.c")));
        }
    }
}

const NO_BUILD_ID: [&str; 1] = ["-Wl,--build-id=none"];

#[test]
fn debug_links_are_followed() {
    let none = SymbolOptions::default();
    for args in [&NO_BUILD_ID[..], &[]] {
        let split = Split::new(args);
        let workshop = &split.workshop;
        split.check(&LiveFiles::new(), &none, Ok("outer"));

        let beside = workshop.path(".debug/inline.debug");
        move_to(&split.debug, &beside);
        split.check(&LiveFiles::new(), &none, Ok("outer"));

        let given = workshop.path("given/inline.debug");
        move_to(&beside, &given);
        split.check(&LiveFiles::new(), &none, Err(Missing::NoSymbols));
        split.check(&LiveFiles::new(), &debug_dir(workshop.path("given")), Ok("outer"));

        // The directory mirrors the file system, as /usr/lib/debug does.
        let dir = split.module.path.parent().unwrap().strip_prefix("/").unwrap();
        let mirrored = workshop.path("mirror").join(dir).join("inline.debug");
        move_to(&given, &mirrored);
        split.check(&LiveFiles::new(), &debug_dir(workshop.path("mirror")), Ok("outer"));
    }
}

#[test]
fn a_linked_file_must_have_the_checksum() {
    let split = Split::new(&NO_BUILD_ID);
    File::options().append(true).open(&split.debug).unwrap().write_all(b"x").unwrap();
    split.check(&LiveFiles::new(), &SymbolOptions::default(), Err(Missing::NoSymbols));
}

#[test]
fn a_linked_file_must_have_the_build_id() {
    let split = Split::new(&["-Wl,--build-id=0x1111111111111111"]);
    let other = ["-O2", "-g", "-Wl,--build-id=0x2222222222222222"];
    let other = split.workshop.build("gcc", "inline.c", "other", &other);
    fs::rename(other, &split.debug).unwrap();
    split.check(&LiveFiles::new(), &SymbolOptions::default(), Err(Missing::NoSymbols));
}

#[test]
fn debug_files_are_found_by_build_id() {
    let none = SymbolOptions::default();
    let split = Split::new(&[]);
    let given = split.workshop.path("given").join(build_id_path(&split.module));
    move_to(&split.debug, &given);
    split.check(&LiveFiles::new(), &none, Err(Missing::NoSymbols));
    split.check(&LiveFiles::new(), &debug_dir(split.workshop.path("given")), Ok("outer"));

    // In a container's own file system.
    let root = split.workshop.path("root");
    let installed = root.join("usr/lib/debug").join(build_id_path(&split.module));
    move_to(&given, &installed);
    split.check(&live(&split.module.path, &root), &none, Ok("outer"));

    // Where the binary itself is gone, its debug information is enough.
    fs::remove_file(&split.module.path).unwrap();
    split.check(&LiveFiles::new(), &debug_dir(root.join("usr/lib/debug")), Ok("outer"));
    split.check(&LiveFiles::new(), &none, Err(Missing::FileUnreadable));
}

#[test]
fn a_file_of_another_build_is_passed_over() {
    let workshop = Workshop::new();
    let file = workshop.inline(&["-Wl,--build-id=0x1111111111111111"]);
    let right = module(&file);
    let address = symbol(&file, "outer").start;
    fs::rename(&file, workshop.path("right")).unwrap();
    let wrong = workshop.inline(&["-Wl,--build-id=0x2222222222222222"]);

    let none = SymbolOptions::default();
    check(right.clone(), &LiveFiles::new(), &none, address, Err(Missing::BuildIdMismatch));
    // The next candidate is tried: the live file is wrong here, the one at the path is right.
    let moved = Module { path: workshop.path("right"), ..right.clone() };
    check(moved, &live(&wrong, Path::new("/")), &none, address, Ok("outer"));
    // A recorder that saw no build-id cannot tell.
    let unknown = Module { build_id: Vec::new(), ..right.clone() };
    check(unknown.clone(), &LiveFiles::new(), &none, address, Ok("outer"));
    // But what lies at the path of an unlinked file is known to be another.
    let unlinked = Module { deleted: true, ..unknown };
    check(unlinked, &LiveFiles::new(), &none, address, Err(Missing::FileUnreadable));
}

#[test]
fn unlinked_files_are_read_through_a_descriptor() {
    let workshop = Workshop::new();
    let file = workshop.inline(&[]);
    let address = symbol(&file, "outer").start;
    let open = File::open(&file).unwrap();
    let unlinked = Module { deleted: true, ..module(&file) };
    fs::remove_file(&file).unwrap();

    let descriptor = PathBuf::from(format!("/proc/self/fd/{}", open.as_raw_fd()));
    let none = SymbolOptions::default();
    check(unlinked.clone(), &live(&descriptor, Path::new("/")), &none, address, Ok("outer"));
    check(unlinked, &LiveFiles::new(), &none, address, Err(Missing::FileUnreadable));
}

#[test]
fn files_of_another_root_are_found_under_it() {
    let workshop = Workshop::new();
    let file = workshop.inline(&[]);
    let address = symbol(&file, "outer").start;
    let inside = Module { path: PathBuf::from("/srv/inline"), ..module(&file) };
    move_to(&file, &workshop.path("root/srv/inline"));
    let files = live(&workshop.path("nowhere"), &workshop.path("root"));
    check(inside, &files, &SymbolOptions::default(), address, Ok("outer"));
}

#[test]
fn the_vdso_is_named_from_a_copy() {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let range = maps.lines().find(|line| line.ends_with("[vdso]")).unwrap();
    let (start, end) = range.split_once(' ').unwrap().0.split_once('-').unwrap();
    let [start, end] = [start, end].map(|at| u64::from_str_radix(at, 16).unwrap());
    let mut bytes = vec![0; usize::try_from(end - start).unwrap()];
    let mut memory = File::open("/proc/self/mem").unwrap();
    memory.seek(SeekFrom::Start(start)).unwrap();
    memory.read_exact(&mut bytes).unwrap();
    let workshop = Workshop::new();
    let copy = workshop.path("copy");
    fs::write(&copy, &bytes).unwrap();

    let vdso = Module {
        path: PathBuf::from("[vdso]"),
        build_id: elf::build_id(&*bytes).unwrap(),
        ..module(&copy)
    };
    let address = symbol(&copy, "clock_gettime").start;
    let none = SymbolOptions::default();
    check(vdso.clone(), &live(&copy, Path::new("/")), &none, address, Ok("clock_gettime"));
    check(vdso, &LiveFiles::new(), &none, address, Err(Missing::FileUnreadable));
}
