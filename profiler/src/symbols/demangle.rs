//! Linker symbols as people write them.

use cpp_demangle::DemangleOptions;

/// Suffixes with which compilers mark a part or a copy of a function. The function is what a reader
/// looks for, and all its parts must add up under one name.
const PART_SUFFIXES: [&str; 6] =
    [".cold", ".part.", ".isra.", ".constprop.", ".lto_priv.", ".llvm."];

/// The readable form of a symbol: no version, no part or copy suffix, Rust and C++ names demangled
/// without hashes, return types and parameters. Other names are returned as they are.
pub fn demangle(symbol: &str) -> String {
    let symbol = without_part_suffix(without_version(symbol));
    if let Ok(rust) = rustc_demangle::try_demangle(symbol) {
        return format!("{rust:#}");
    }
    if symbol.starts_with("_Z") {
        let options = DemangleOptions::new().no_params().no_return_type();
        let cpp = cpp_demangle::Symbol::new(symbol)
            .ok()
            .and_then(|name| name.demangle_with_options(&options).ok());
        if let Some(name) = cpp {
            return name;
        }
    }
    symbol.to_owned()
}

/// `pthread_cond_wait@@GLIBC_2.3.2` is how static symbol tables spell a versioned symbol.
pub fn without_version(symbol: &str) -> &str {
    match symbol.find('@') {
        Some(at) if at > 0 => &symbol[..at],
        _ => symbol,
    }
}

fn without_part_suffix(symbol: &str) -> &str {
    let first = PART_SUFFIXES
        .iter()
        .filter_map(|suffix| {
            let at = symbol.find(suffix)?;
            let rest = &symbol[at + suffix.len()..];
            let whole = suffix.ends_with('.') || rest.is_empty() || rest.starts_with('.');
            (at > 0 && whole).then_some(at)
        })
        .min();
    first.map_or(symbol, |at| &symbol[..at])
}

#[cfg(test)]
mod tests {
    use super::demangle;

    fn check(symbol: &str, expected: &str) {
        assert_eq!(demangle(symbol), expected, "{symbol}");
    }

    #[test]
    fn names_are_readable() {
        check("main", "main");
        check("_ZN4core3ptr4read17h0123456789abcdefE", "core::ptr::read");
        check("_ZN4core3ptr4read17h0123456789abcdefE.llvm.1234567890", "core::ptr::read");
        check("_RNvNtCs1234_7mycrate5inner3fun", "mycrate::inner::fun");
        check("_ZN5stall6Widget4spinEi", "stall::Widget::spin");
        check("_ZN5stall6Widget4spinEi.cold", "stall::Widget::spin");
        check("_ZN5stall3maxIiEET_S1_", "stall::max<int>");
        check("float_richcompare.cold", "float_richcompare");
        check("walk.constprop.0.isra.0", "walk");
        check("pthread_cond_wait@@GLIBC_2.3.2", "pthread_cond_wait");
        check("brew.coldly", "brew.coldly");
        check("main.handler", "main.handler");
        check("_Z", "_Z");
        check("_ZNgarbage", "_ZNgarbage");
        check("_R", "_R");
        check("", "");
    }
}
