//! Numbers that must not be mistaken for one another: instants, lengths, ids and addresses.

use serde::{Deserialize, Serialize};

macro_rules! unit {
    ($(#[$doc:meta])+ $name:ident($raw:ty)) => {
        $(#[$doc])+
        #[derive(
            Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(pub $raw);

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

unit!(
    /// An instant of `CLOCK_MONOTONIC`, in nanoseconds; `bpf_ktime_get_ns` reads the same clock.
    Ktime(u64)
);
unit!(
    /// A length of time in nanoseconds.
    Nanos(u64)
);
unit!(
    /// A process, as the recorder's PID namespace numbers it.
    Pid(u32)
);
unit!(
    /// A thread, as the recorder's PID namespace numbers it.
    Tid(u32)
);
unit!(
    /// An address in the address space of a running process.
    Avma(u64)
);
unit!(
    /// An address as an ELF file states it: what `nm` and `addr2line -e FILE` speak of.
    Svma(u64)
);
unit!(
    /// An offset in a file.
    FileOffset(u64)
);

impl Ktime {
    /// How long after `earlier` this is; zero if it is not.
    pub fn since(self, earlier: Self) -> Nanos {
        Nanos(self.0.saturating_sub(earlier.0))
    }
}

impl std::ops::Add for Nanos {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }
}

impl std::ops::AddAssign for Nanos {
    fn add_assign(&mut self, other: Self) {
        self.0 += other.0;
    }
}

impl std::ops::Sub for Nanos {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self(self.0 - other.0)
    }
}

impl std::iter::Sum for Nanos {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        Self(all.map(|nanos| nanos.0).sum())
    }
}
