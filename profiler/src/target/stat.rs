//! Reads the text of `/proc/PID/stat`, `status` and `schedstat`.

use crate::units::{Nanos, Pid};

/// Flag of a kernel thread in `stat` (`PF_KTHREAD`, `linux/sched.h`).
const PF_KTHREAD: u32 = 0x0020_0000;

/// What of `/proc/PID/stat` is needed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stat {
    pub name: String,
    pub ended: bool,
    pub parent: Pid,
    pub kernel_thread: bool,
    /// When it began, in clock ticks since boot.
    pub start_ticks: u64,
}

impl Stat {
    /// `None` if the text is not a `stat` line: the process went away while it was read.
    pub fn parse(text: &str) -> Option<Self> {
        // The name may hold anything, `)` and spaces too; nothing after it holds a `)`.
        let (head, tail) = text.rsplit_once(')')?;
        let (_, name) = head.split_once('(')?;
        let fields: Vec<&str> = tail.split_ascii_whitespace().collect();
        // proc_pid_stat(5) counts from 1 and `tail` begins with field 3.
        let field = |number: usize| fields.get(number - 3).copied();
        Some(Self {
            name: name.to_owned(),
            ended: matches!(field(3)?, "Z" | "X" | "x"),
            parent: Pid(field(4)?.parse().ok()?),
            kernel_thread: field(9)?.parse::<u32>().ok()? & PF_KTHREAD != 0,
            start_ticks: field(22)?.parse().ok()?,
        })
    }
}

/// What of `/proc/PID/status` is needed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Status {
    /// The process that the thread belongs to.
    pub process: Pid,
    /// Ids of the thread, from the namespace of `/proc` to its own; kernels before 4.1 tell none.
    pub namespace_pids: Vec<u32>,
    /// Voluntary and involuntary switches of this one thread.
    pub switches: u64,
}

impl Status {
    /// `None` if a line is missing.
    pub fn parse(text: &str) -> Option<Self> {
        let number = |name| field(text, name)?.parse::<u64>().ok();
        Some(Self {
            process: Pid(number("Tgid")? as u32),
            namespace_pids: field(text, "NSpid")
                .map(|ids| ids.split_ascii_whitespace().filter_map(|id| id.parse().ok()).collect())
                .unwrap_or_default(),
            switches: number("voluntary_ctxt_switches")? + number("nonvoluntary_ctxt_switches")?,
        })
    }

    /// The thread's id in its own PID namespace, if that is not the one of `/proc`.
    pub fn inner_pid(&self) -> Option<u32> {
        match self.namespace_pids[..] {
            [_, .., inner] => Some(inner),
            _ => None,
        }
    }
}

/// The value of a `Name:\tvalue` line.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}

/// The kernel's own accounting of one thread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SchedStat {
    /// Time on a CPU.
    pub running: Nanos,
    /// Time on a run queue.
    pub runnable: Nanos,
    /// Times it was given a CPU.
    pub slices: u64,
}

impl SchedStat {
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut fields = text.split_ascii_whitespace().map(str::parse::<u64>);
        let mut next = || fields.next()?.ok();
        Some(Self { running: Nanos(next()?), runnable: Nanos(next()?), slices: next()? })
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed test may panic")]
mod tests {
    use super::*;

    fn line(name: &str, state: char, flags: u32) -> String {
        format!(
            "42 ({name}) {state} 7 42 42 0 -1 {flags} 100 0 0 0 1 2 0 0 20 0 3 0 98765 1000 200 \
             18446744073709551615 1 1 0 0 0 0 0 0 0 0 0 0 17 1 0 0 0 0 0 0 0 0 0 0 0 0 0"
        )
    }

    #[test]
    fn stat_is_read_whatever_the_name() {
        let check = |name: &str, state, flags, ended, kernel_thread| {
            let expected = Stat {
                name: name.to_owned(),
                ended,
                parent: Pid(7),
                kernel_thread,
                start_ticks: 98765,
            };
            assert_eq!(Stat::parse(&line(name, state, flags)), Some(expected));
        };
        check("service", 'S', 0x0040_0000, false, false);
        check("tokio-runtime-w", 'R', 0x0040_0040, false, false);
        check("a) S 1 (b", 'D', 0, false, false);
        check("", 'S', 0, false, false);
        check("(sd-pam)", 'Z', 0x0040_004c, true, false);
        check("kworker/0:1-e", 'I', 0x0420_8060, false, true);
    }

    #[test]
    fn a_stat_line_cut_short_is_none() {
        let whole = line("a (b) c", 'S', 0);
        let start = whole.find("98765").unwrap();
        for length in 0..start {
            assert_eq!(Stat::parse(&whole[..length]), None, "{}", &whole[..length]);
        }
        assert_eq!(Stat::parse("not a stat line"), None);
    }

    #[test]
    fn status_tells_the_process_and_the_ids_in_each_namespace() {
        let check = |nspid: &str, inner, count| {
            let text = format!(
                "Name:\tx\nTgid:\t41\nNgid:\t0\nPid:\t42\n{nspid}Threads:\t3\n\
                 voluntary_ctxt_switches:\t5\nnonvoluntary_ctxt_switches:\t6\n"
            );
            let status = Status::parse(&text).unwrap();
            assert_eq!((status.process, status.switches), (Pid(41), 11));
            assert_eq!((status.inner_pid(), status.namespace_pids.len()), (inner, count));
        };
        check("NSpid:\t42\n", None, 1);
        check("NSpid:\t42\t7\n", Some(7), 2);
        check("NSpid:\t42\t7\t1\n", Some(1), 3);
        check("", None, 0);
        assert_eq!(Status::parse("Name:\tx\nTgid:\t41\n"), None);
    }

    #[test]
    fn schedstat_is_three_numbers() {
        let expected = SchedStat { running: Nanos(12), runnable: Nanos(34), slices: 5 };
        assert_eq!(SchedStat::parse("12 34 5\n"), Some(expected));
        assert_eq!(SchedStat::parse("12 34\n"), None);
    }
}
