//! Which thing a syscall waits on, from its arguments.
//!
//! What lies behind a pointer is not known: it is memory of the target, and another thing by the
//! time that somebody reads it. So a sleep is known by its clock and not by the length that it was
//! asked for, and a `poll` not by its descriptors.

use crate::{recording::Regs, units::Avma};

/// What a syscall was asked to wait on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Awaited {
    /// A file descriptor.
    Descriptor(u32),
    /// An epoll, by its file descriptor.
    Epoll(u32),
    /// A futex.
    Futex {
        /// Where it is.
        address: Avma,
        /// Only threads of the process can use it.
        private: bool,
    },
    /// A child process, by the number that its parent has for it; `None` for any.
    Child(Option<u32>),
    /// A clock, by its number in `clock_gettime`.
    Clock(u32),
}

/// `FUTEX_PRIVATE_FLAG` of `linux/futex.h`, and `FUTEX2_PRIVATE`, which is the same bit.
const PRIVATE: u64 = 128;

/// `P_PID` and `P_PIDFD` of `waitid`.
const WAIT_FOR_PID: u64 = 1;
const WAIT_FOR_PIDFD: u64 = 3;

/// `futex_wait` of Linux 6.7, newer than libc's list.
const SYS_FUTEX_WAIT: i64 = 455;

/// The thing that a wait with these registers is on, where they say it.
pub fn awaited(regs: Option<Regs>) -> Option<Awaited> {
    let Regs { syscall: Some(syscall), args, .. } = regs? else { return None };
    of_syscall(syscall, args)
}

fn of_syscall(syscall: u32, args: [u64; 6]) -> Option<Awaited> {
    let first = args[0] as u32;
    let futex =
        |flags: u64| Awaited::Futex { address: Avma(args[0]), private: flags & PRIVATE != 0 };
    Some(match i64::from(syscall) {
        libc::SYS_futex => futex(args[1]),
        SYS_FUTEX_WAIT => futex(args[4]),
        libc::SYS_epoll_wait | libc::SYS_epoll_pwait | libc::SYS_epoll_pwait2 => {
            Awaited::Epoll(first)
        }
        libc::SYS_nanosleep => Awaited::Clock(libc::CLOCK_MONOTONIC.cast_unsigned()),
        libc::SYS_clock_nanosleep => Awaited::Clock(first),
        // Below zero is a process group, and so is zero.
        libc::SYS_wait4 => {
            Awaited::Child(u32::try_from(first.cast_signed()).ok().filter(|pid| *pid > 0))
        }
        libc::SYS_waitid => match args[0] {
            WAIT_FOR_PID => Awaited::Child(Some(args[1] as u32)),
            WAIT_FOR_PIDFD => Awaited::Descriptor(args[1] as u32),
            _ => Awaited::Child(None),
        },
        libc::SYS_read
        | libc::SYS_write
        | libc::SYS_readv
        | libc::SYS_writev
        | libc::SYS_pread64
        | libc::SYS_pwrite64
        | libc::SYS_preadv
        | libc::SYS_pwritev
        | libc::SYS_preadv2
        | libc::SYS_pwritev2
        | libc::SYS_recvfrom
        | libc::SYS_recvmsg
        | libc::SYS_recvmmsg
        | libc::SYS_sendto
        | libc::SYS_sendmsg
        | libc::SYS_sendmmsg
        | libc::SYS_accept
        | libc::SYS_accept4
        | libc::SYS_connect
        | libc::SYS_fsync
        | libc::SYS_fdatasync
        | libc::SYS_syncfs
        | libc::SYS_sync_file_range
        | libc::SYS_fallocate
        | libc::SYS_ftruncate
        | libc::SYS_fstat
        | libc::SYS_getdents64
        | libc::SYS_flock
        | libc::SYS_fcntl
        | libc::SYS_ioctl
        | libc::SYS_io_uring_enter => Awaited::Descriptor(first),
        _ => return None,
    })
}

impl Awaited {
    /// What tells one instance of a runtime from another: the address of a futex, the descriptor of
    /// an epoll.
    pub fn instance(self) -> Option<u64> {
        match self {
            Self::Futex { address, .. } => Some(address.0),
            Self::Epoll(descriptor) => Some(descriptor.into()),
            Self::Descriptor(_) | Self::Child(_) | Self::Clock(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_name_what_is_waited_on() {
        let check = |syscall: i64, args: [u64; 6], expected| {
            let syscall = u32::try_from(syscall).unwrap_or_default();
            assert_eq!(of_syscall(syscall, args), expected, "{syscall} {args:x?}");
        };
        check(libc::SYS_read, [7, 1, 2, 0, 0, 0], Some(Awaited::Descriptor(7)));
        check(libc::SYS_epoll_wait, [4, 1, 2, 0, 0, 0], Some(Awaited::Epoll(4)));
        let futex = |private| Some(Awaited::Futex { address: Avma(0x1000), private });
        check(libc::SYS_futex, [0x1000, 0x189, 0, 0, 0, 0], futex(true));
        check(libc::SYS_futex, [0x1000, 0, 0x80, 0, 0x80, 0], futex(false));
        check(SYS_FUTEX_WAIT, [0x1000, 0, 0, 0, 0x82, 0], futex(true));
        check(libc::SYS_wait4, [4711, 0, 0, 0, 0, 0], Some(Awaited::Child(Some(4711))));
        // -1 as C hands over an int: the upper half is anything.
        check(libc::SYS_wait4, [0xffff_ffff, 0, 0, 0, 0, 0], Some(Awaited::Child(None)));
        check(libc::SYS_waitid, [1, 9, 0, 0, 0, 0], Some(Awaited::Child(Some(9))));
        check(libc::SYS_waitid, [3, 9, 0, 0, 0, 0], Some(Awaited::Descriptor(9)));
        check(libc::SYS_clock_nanosleep, [1, 1, 0, 0, 0, 0], Some(Awaited::Clock(1)));
        check(libc::SYS_poll, [0x1000, 1, 5, 0, 0, 0], None);
        check(libc::SYS_openat, [3, 0x1000, 0, 0, 0, 0], None);
    }
}
