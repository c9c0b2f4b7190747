//! Names of the running kernel's code, from `/proc/kallsyms`.

use std::{collections::BTreeSet, fs};

use super::ranges::preference;
use crate::{
    recording::{Missing, NamedFrame, ResolvedName},
    units::Avma,
};

/// How far the last symbol of the kernel or of one of its modules reaches, in bytes: kallsyms knows
/// no sizes, and what follows may be generated code that belongs to nobody listed.
const LAST_SYMBOL_REACH: u64 = 4096;

/// Names kernel addresses, one result for each in their order.
///
/// Reads `/proc/kallsyms` of this boot; addresses of another boot are not looked up, since the
/// kernel is loaded somewhere else each time.
pub fn names(boot_id: &str, addresses: &BTreeSet<Avma>) -> Vec<ResolvedName> {
    let kallsyms = match fs::read_to_string("/proc/sys/kernel/random/boot_id") {
        Ok(this_boot) if this_boot.trim() == boot_id.trim() => {
            fs::read_to_string("/proc/kallsyms").unwrap_or_default()
        }
        _ => return vec![ResolvedName::Missing(Missing::OtherBoot); addresses.len()],
    };
    let symbols = Kallsyms::parse(&kallsyms);
    addresses.iter().map(|address| symbols.name(*address)).collect()
}

/// The kernel's symbols, of code and of everything else, in order of address.
struct Kallsyms<'t> {
    symbols: Vec<KernelSymbol<'t>>,
}

struct KernelSymbol<'t> {
    address: u64,
    /// One letter, as `nm` prints it.
    kind: u8,
    name: &'t str,
    /// The module, empty for the kernel proper.
    module: &'t str,
}

impl KernelSymbol<'_> {
    fn is_code(&self) -> bool {
        matches!(self.kind, b't' | b'T' | b'w' | b'W')
    }
}

impl<'t> Kallsyms<'t> {
    /// Lines that are not `ADDRESS KIND NAME [MODULE]` are passed over, and so are symbols at zero:
    /// offsets of per-CPU data, or everything where addresses are hidden.
    fn parse(text: &'t str) -> Self {
        let mut symbols: Vec<_> = text
            .lines()
            .filter_map(|line| {
                let mut words = line.split_ascii_whitespace();
                let address = u64::from_str_radix(words.next()?, 16).ok().filter(|at| *at != 0)?;
                let kind = *words.next()?.as_bytes().first()?;
                Some(KernelSymbol {
                    address,
                    kind,
                    name: words.next()?,
                    module: words.next().unwrap_or_default(),
                })
            })
            .collect();
        symbols.sort_by_key(|symbol| symbol.address);
        Self { symbols }
    }

    fn name(&self, address: Avma) -> ResolvedName {
        if self.symbols.is_empty() {
            return ResolvedName::Missing(Missing::KernelHidden);
        }
        let Some(symbol) = self.symbol_at(address.0) else {
            return ResolvedName::Missing(Missing::NoSymbolHere);
        };
        let function = if symbol.module.is_empty() {
            symbol.name.to_owned()
        } else {
            format!("{} {}", symbol.name, symbol.module)
        };
        ResolvedName::Frames(vec![NamedFrame { function, file: None, line: None }])
    }

    fn symbol_at(&self, address: u64) -> Option<&KernelSymbol<'t>> {
        let after = self.symbols.partition_point(|symbol| symbol.address <= address);
        let start = self.symbols[..after].last()?.address;
        let first = self.symbols.partition_point(|symbol| symbol.address < start);
        let next_module = self.symbols.get(after).map(|symbol| symbol.module);
        self.symbols[first..after]
            .iter()
            .filter(|symbol| {
                symbol.is_code()
                    && (next_module == Some(symbol.module)
                        || address - symbol.address < LAST_SYMBOL_REACH)
            })
            .max_by_key(|symbol| preference(symbol.name, true, symbol.kind == b'T'))
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed test may panic")]

    use std::{collections::BTreeSet, fs};

    use super::{Kallsyms, names};
    use crate::{
        recording::{Missing, NamedFrame, ResolvedName},
        units::Avma,
    };

    const KERNEL: &str = "\
0000000000000000 A fixed_percpu_data
ffffffff81000100 T __x64_sys_read
ffffffff81000100 t __do_sys_read
ffffffff81000200 t schedule
ffffffff81000300 D jiffies
ffffffff81000400 T _etext
ffffffffc0001000 t probe\t[virtio]
ffffffffc0001080 t remove\t[virtio]
ffffffffc0100000 t bpf_prog_1\t[bpf]
not a line
";

    fn named(function: &str) -> ResolvedName {
        ResolvedName::Frames(vec![NamedFrame {
            function: function.to_owned(),
            file: None,
            line: None,
        }])
    }

    fn check(text: &str, address: u64, expected: &ResolvedName) {
        assert_eq!(Kallsyms::parse(text).name(Avma(address)), *expected, "{address:#x}");
    }

    #[test]
    fn names_reach_to_the_next_symbol() {
        let nothing = ResolvedName::Missing(Missing::NoSymbolHere);
        check(KERNEL, 0xffff_ffff_8100_00ff, &nothing);
        check(KERNEL, 0xffff_ffff_8100_0100, &named("__x64_sys_read"));
        check(KERNEL, 0xffff_ffff_8100_01ff, &named("__x64_sys_read"));
        check(KERNEL, 0xffff_ffff_8100_0200, &named("schedule"));
        check(KERNEL, 0xffff_ffff_8100_0300, &nothing);
        check(KERNEL, 0xffff_ffff_8100_1400, &nothing);
        check(KERNEL, 0xffff_ffff_c000_107f, &named("probe [virtio]"));
        check(KERNEL, 0xffff_ffff_c000_1080, &named("remove [virtio]"));
        check(KERNEL, 0xffff_ffff_c000_2080, &nothing);
        check(KERNEL, 0xffff_ffff_c010_0fff, &named("bpf_prog_1 [bpf]"));
        check(KERNEL, 0xffff_ffff_c010_1000, &nothing);
    }

    #[test]
    fn hidden_symbols_say_so() {
        let hidden = ResolvedName::Missing(Missing::KernelHidden);
        check("0000000000000000 T schedule\n0000000000000000 t probe\t[virtio]\n", 0x1000, &hidden);
        check("", 0x1000, &hidden);
    }

    #[test]
    fn another_boot_is_not_looked_up() {
        let addresses = BTreeSet::from([Avma(0xffff_ffff_8100_0100)]);
        assert_eq!(
            names("00000000-0000-0000-0000-000000000000", &addresses),
            [ResolvedName::Missing(Missing::OtherBoot)]
        );
    }

    #[test]
    fn this_kernel_names_its_scheduler() {
        let text = fs::read_to_string("/proc/kallsyms").unwrap();
        let address = text
            .lines()
            .find_map(|line| line.strip_suffix(" T schedule"))
            .map(|address| u64::from_str_radix(address, 16).unwrap())
            .unwrap();
        let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
        // Inside the function, as a return address would be.
        let addresses = BTreeSet::from([Avma(address + 4)]);
        // Not root, or kptr_restrict is 2: then the names must be said to be hidden.
        let expected = if address == 0 {
            ResolvedName::Missing(Missing::KernelHidden)
        } else {
            named("schedule")
        };
        assert_eq!(names(&boot_id, &addresses), [expected]);
    }
}
