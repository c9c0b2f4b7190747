//! Which name an address gets.

use std::{collections::HashMap, fs, path::Path};

use object::{Object as _, ObjectSymbol as _};

use super::{
    MODULE, Workshop, check, fixture, functions, marked_line, module, recording, resolve_one,
    symbol,
};
use crate::{
    recording::{
        CodeAddress, FrameKind, KernelStack, KernelStackId, Missing, ModuleId, NamedFrame,
        RawFrame, ResolvedName,
    },
    symbols::{LiveFiles, SymbolOptions, lookup_address, names, resolve},
    units::{Avma, Svma},
};

/// Asserts that at some address of the function `symbol_part` stands this chain: each function with
/// the mark of its line in the source, outermost first. Deeper inlining is not looked at.
fn check_chain(file: &Path, source: &str, symbol_part: &str, chain: &[(&str, &str)]) {
    let range = symbol(file, symbol_part);
    let table =
        resolve(&recording(module(file), range), &LiveFiles::new(), &SymbolOptions::default());
    let found = table.iter().any(|(_, name)| match name {
        ResolvedName::Frames(frames) => {
            frames.len() >= chain.len()
                && chain.iter().zip(frames).all(|((function, mark), frame)| {
                    frame.function == *function
                        && (mark.is_empty() || frame.line == Some(marked_line(source, mark)))
                        && frame.file.as_ref().is_some_and(|file| file.ends_with(source))
                })
        }
        ResolvedName::Missing(_) => false,
    });
    assert!(found, "{chain:?} in {table:#?}");
}

#[test]
fn inlined_functions_keep_their_lines() {
    let chain = [("outer", "outer"), ("middle", "middle"), ("inner", "inner")];
    for args in [&[][..], &["-gdwarf-4"], &["-gz=zlib"], &["-fno-pie", "-no-pie"]] {
        let workshop = Workshop::new();
        check_chain(&workshop.inline(args), "inline.c", "outer", &chain);
    }
}

#[test]
fn shared_debug_information_is_read_too() {
    let (outer, inlined) = ("outer_with_a_name_worth_sharing", "inlined_with_a_name_worth_sharing");
    let chain = [(outer, "outer"), (inlined, "inlined")];
    check_chain(&fixture("shared.so"), "shared.c", outer, &chain);

    // Without the shared part the inlined function has no name, but its place and its line.
    let workshop = Workshop::new();
    let alone = workshop.path("alone.so");
    fs::copy(fixture("shared.so"), &alone).unwrap();
    check_chain(&alone, "shared.c", outer, &[(outer, "outer"), ("?", "inlined")]);
}

#[test]
fn cpp_names_are_demangled() {
    let workshop = Workshop::new();
    let file = workshop.build("g++", "names.cpp", "names", &["-O1"]);
    for (part, expected) in [("Widget", "stall::Widget::spin"), ("twice", "stall::twice<int>")] {
        let address = symbol(&file, part).start;
        check(module(&file), &LiveFiles::new(), &SymbolOptions::default(), address, Ok(expected));
    }
}

#[test]
fn rust_names_have_their_path() {
    let legacy = "paths::outer::inner::Worker::run_task";
    let v0 = "<paths::outer::inner::Worker>::run_task";
    // Debug information of lines alone has only short names, the symbol table has the path.
    for (mangling, debuginfo, outermost, inlined) in [
        ("legacy", "line-tables-only", legacy, "wait"),
        ("legacy", "1", legacy, "paths::outer::wait"),
        ("v0", "line-tables-only", v0, "wait"),
        ("v0", "2", v0, "paths::outer::wait"),
    ] {
        let workshop = Workshop::new();
        let mangling = format!("symbol-mangling-version={mangling}");
        let debuginfo = format!("debuginfo={debuginfo}");
        let args = ["-O", "-Z", "unstable-options", "-C", &debuginfo, "-C", &mangling];
        let file = workshop.build("rustc", "paths.rs", "paths", &args);
        check_chain(&file, "paths.rs", "run_task", &[(outermost, ""), (inlined, "wait")]);
    }
}

#[test]
fn names_hold_within_their_symbol() {
    let workshop = Workshop::new();
    let file = workshop.build("gcc", "sizes.s", "sizes", &["-shared", "-nostdlib"]);
    let nothing = Err(Missing::NoSymbolHere);
    for (label, offset, expected) in [
        ("sized", 0, Ok("sized")),
        ("sized", 15, Ok("sized")),
        ("sized", 16, nothing),
        ("sizeless", 0, Ok("sizeless")),
        ("sizeless", 15, Ok("sizeless")),
        ("sizeless", 16, Ok("alias")),
        ("label_owner", 8, Ok("label_owner")),
        ("label_owner", 15, Ok("label_owner")),
        ("label_owner", 16, nothing),
        ("other", 7, Ok("other")),
        ("other", 8, Ok("nested")),
        ("other", 12, Ok("other")),
        ("other", 16, nothing),
        ("last", 15, Ok("last")),
        ("last", 16, nothing),
        ("object", 0, nothing),
    ] {
        let address = symbol(&file, label).start + offset;
        check(module(&file), &LiveFiles::new(), &SymbolOptions::default(), address, expected);
    }
}

#[test]
fn exported_names_serve_a_stripped_library() {
    let workshop = Workshop::new();
    let whole = workshop.build("gcc", "sizes.s", "whole", &["-shared", "-nostdlib"]);
    workshop.run("strip", ["-o", "stripped", "whole"]);
    let nothing = Err(Missing::NoSymbolHere);
    // `.dynsym` is sparse: what has no size there reaches nowhere.
    for (label, offset, expected) in [
        ("sized", 15, Ok("sized")),
        ("sizeless", 0, nothing),
        ("alias", 0, Ok("alias")),
        ("nested", 0, Ok("other")),
    ] {
        let address = symbol(&whole, label).start + offset;
        let stripped = module(&workshop.path("stripped"));
        check(stripped, &LiveFiles::new(), &SymbolOptions::default(), address, expected);
    }
}

#[test]
fn a_file_without_symbols_says_so() {
    let workshop = Workshop::new();
    let file = workshop.inline(&[]);
    let address = symbol(&file, "outer").start;
    workshop.run("strip", ["inline"]);
    let missing = Err(Missing::NoSymbols);
    check(module(&file), &LiveFiles::new(), &SymbolOptions::default(), address, missing);
}

#[test]
fn recorded_names_are_kept() {
    let workshop = Workshop::new();
    let file = workshop.inline(&[]);
    let [outer, main] = ["outer", "main"].map(|name| symbol(&file, name).start);
    let kept = ResolvedName::Frames(vec![NamedFrame {
        function: "as_it_was".to_owned(),
        file: None,
        line: None,
    }]);
    let at = |address| CodeAddress::Module(MODULE, Svma(address));

    let mut recording = recording(module(&file), [outer, main]);
    recording.names = HashMap::from([
        (at(outer), kept.clone()),
        (at(main), ResolvedName::Missing(Missing::FileUnreadable)),
    ]);
    let table = resolve(&recording, &LiveFiles::new(), &SymbolOptions::default());
    assert_eq!(table.get(&at(outer)), &kept);
    assert_eq!(functions(table.get(&at(main))), Ok(vec!["main"]));

    // Later, elsewhere: the file is gone, and the first reason tells more.
    fs::remove_file(&file).unwrap();
    let first_reason = ResolvedName::Missing(Missing::NoSymbolHere);
    recording.names.insert(at(main), first_reason.clone());
    let table = resolve(&recording, &LiveFiles::new(), &SymbolOptions::default());
    assert_eq!(
        names(&table).names,
        [(at(main).min(at(outer)), at(main)), (at(main).max(at(outer)), at(main))].map(
            |(address, main)| {
                (address, if address == main { first_reason.clone() } else { kept.clone() })
            }
        )
    );
}

#[test]
fn return_addresses_are_looked_up_in_the_call() {
    for (address, kind, expected) in [
        (0x100, FrameKind::InstructionPointer, 0x100),
        (0x100, FrameKind::ReturnAddress, 0xff),
        (0, FrameKind::ReturnAddress, 0),
    ] {
        for spaces in [
            [
                CodeAddress::Module(MODULE, Svma(address)),
                CodeAddress::Module(MODULE, Svma(expected)),
            ],
            [CodeAddress::Memory(Avma(address)), CodeAddress::Memory(Avma(expected))],
            [CodeAddress::Kernel(Avma(address)), CodeAddress::Kernel(Avma(expected))],
        ] {
            assert_eq!(lookup_address(&RawFrame { address: spaces[0], kind }), spaces[1]);
        }
    }
}

#[test]
fn no_address_of_a_recording_is_left_out() {
    let workshop = Workshop::new();
    let file = workshop.inline(&[]);
    let mut recording = recording(module(&file), [symbol(&file, "outer").start]);
    let memory = CodeAddress::Memory(Avma(0x1000));
    let unknown_module = CodeAddress::Module(ModuleId(99), Svma(1));
    for stack in recording.user_stacks.values_mut() {
        let kind = FrameKind::InstructionPointer;
        stack.frames.push(RawFrame { address: memory, kind });
        stack.frames.push(RawFrame { address: unknown_module, kind });
    }
    let kernel_stack = KernelStack { id: KernelStackId(0), frames: vec![Avma(0x2000)] };
    recording.kernel_stacks.insert(kernel_stack.id, kernel_stack);
    recording.session.host.boot_id = "another".to_owned();

    let table = resolve(&recording, &LiveFiles::new(), &SymbolOptions::default());
    assert_eq!(table.iter().count(), 4);
    for (address, reason) in [
        (memory, Missing::NotInFile),
        (unknown_module, Missing::FileUnreadable),
        (CodeAddress::Kernel(Avma(0x1fff)), Missing::OtherBoot),
    ] {
        assert_eq!(table.get(&address), &ResolvedName::Missing(reason), "{address:?}");
    }
}

#[test]
fn libc_calls_have_the_names_people_write() {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let mut paths = maps.lines().filter_map(|line| line.split_ascii_whitespace().nth(5));
    let libc = Path::new(paths.find(|path| path.ends_with("/libc.so.6")).unwrap());
    let bytes = fs::read(libc).unwrap();
    let elf = object::File::parse(&*bytes).unwrap();
    for call in ["read", "nanosleep", "pthread_cond_wait", "epoll_wait"] {
        // A function may have several versions; any of them will do.
        let versions = elf.dynamic_symbols().filter(|symbol| symbol.name() == Ok(call));
        let address = versions.map(|symbol| symbol.address()).max().unwrap();
        let name =
            resolve_one(module(libc), &LiveFiles::new(), &SymbolOptions::default(), address + 4);
        assert_eq!(functions(&name).map(|names| names[0]), Ok(call));
    }
}
