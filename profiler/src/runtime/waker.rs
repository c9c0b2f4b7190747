//! What ended a wait, by the context of the wake-up and the kernel functions that led to it.

use crate::recording::WakeContext;

/// What ended a wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WakerKind {
    /// A thread, by what it did.
    Thread,
    /// A timer that ran out.
    Timer,
    /// The network card, or what stands for one.
    Network,
    /// A disk.
    Disk,
    /// Another interrupt.
    Interrupt,
    /// It cannot be told whether the thread did so that was current.
    Unknown,
}

impl WakerKind {
    /// As it stands in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Thread => "thread",
            Self::Timer => "timer",
            Self::Network => "network",
            Self::Disk => "disk",
            Self::Interrupt => "interrupt",
            Self::Unknown => "unknown",
        }
    }
}

/// Where a thread has softirqs served by itself, at the end of what it does with the network.
const OWN_SOFTIRQ: &[&str] = &["__local_bh_enable_ip", "do_softirq"];

/// Where an interrupt, or the thread that serves softirqs in its stead, came in.
const CAME_IN: &[&str] =
    &["irq_exit", "sysvec_", "common_interrupt", "run_ksoftirqd", "handle_irq", "__irq_exit"];

/// Functions by which timers run out.
const TIMERS: &[&str] = &[
    "hrtimer_wakeup",
    "process_timeout",
    "timerfd_",
    "posix_timer_fn",
    "it_real_fn",
    "alarmtimer_",
    "run_timer_softirq",
    "run_timer_base",
    "__hrtimer_run_queues",
];

/// Functions by which packets come in.
const NETWORK: &[&str] = &["net_rx_action", "__netif_receive_skb", "napi_", "sock_def_readable"];

/// Functions by which disks say that they are done.
const DISKS: &[&str] = &["bio_endio", "blk_mq_", "blk_done_softirq", "end_bio_", "scsi_", "nvme_"];

/// What ended a wait; `kernel` are the names on the kernel stack, leaf first.
pub fn kind(context: WakeContext, kernel: &[&str]) -> WakerKind {
    let begins = |name: &str, with: &[&str]| with.iter().any(|prefix| name.starts_with(prefix));
    let by_interrupt = || {
        let has = |which: &[&str]| kernel.iter().any(|name| begins(name, which));
        let kinds =
            [(TIMERS, WakerKind::Timer), (NETWORK, WakerKind::Network), (DISKS, WakerKind::Disk)];
        let found = kinds.into_iter().find(|(which, _)| has(which));
        found.map_or(WakerKind::Interrupt, |(_, kind)| kind)
    };
    // The first of either from the leaf outwards: a softirq of a thread's own can itself be
    // interrupted, and an interrupt can come upon one.
    let own = kernel.iter().find_map(|name| {
        let own = begins(name, OWN_SOFTIRQ);
        (own || begins(name, CAME_IN)).then_some(own)
    });
    match (context, own) {
        (WakeContext::Thread, _) => WakerKind::Thread,
        (WakeContext::Interrupt, _) | (_, Some(false)) => by_interrupt(),
        (_, Some(true)) => WakerKind::Thread,
        (WakeContext::Unknown, None) if !kernel.is_empty() => WakerKind::Thread,
        (WakeContext::Unknown | WakeContext::Softirq, None) => WakerKind::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use WakeContext::{Interrupt, Softirq, Thread, Unknown};

    #[test]
    fn the_way_to_the_wake_up_tells_what_made_it() {
        let check = |context: WakeContext, kernel: &[&str], expected: WakerKind| {
            assert_eq!(kind(context, kernel), expected, "{context:?} {kernel:?}");
        };
        check(Thread, &[], WakerKind::Thread);
        check(Interrupt, &[], WakerKind::Interrupt);
        check(
            Interrupt,
            &["hrtimer_wakeup", "__hrtimer_run_queues", "sysvec_apic_timer_interrupt"],
            WakerKind::Timer,
        );
        check(Interrupt, &["blk_mq_end_request", "virtblk_done"], WakerKind::Disk);
        let loopback = ["sock_def_readable", "tcp_rcv_established", "net_rx_action"];
        // A sender on the loopback device delivers by itself.
        let sends = [&loopback[..], &["do_softirq", "__local_bh_enable_ip", "tcp_sendmsg"]];
        check(Softirq, &sends.concat(), WakerKind::Thread);
        let comes = [&loopback[..], &["__irq_exit_rcu", "common_interrupt", "tcp_sendmsg"]];
        check(Softirq, &comes.concat(), WakerKind::Network);
        check(Softirq, &["process_timeout", "run_timer_softirq", "irq_exit_rcu"], WakerKind::Timer);
        check(Softirq, &[], WakerKind::Unknown);
        // Without the context the names decide, and without names nothing does.
        check(Unknown, &["try_to_wake_up", "futex_wake", "do_syscall_64"], WakerKind::Thread);
        check(Unknown, &["hrtimer_wakeup", "sysvec_apic_timer_interrupt"], WakerKind::Timer);
        check(Unknown, &[], WakerKind::Unknown);
    }
}
