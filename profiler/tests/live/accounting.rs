//! Times of threads are those of the kernel's own accounting.

use std::time::Duration;

use crate::support::{
    exact::{CLOCK_READ_NS, observe, off_by},
    process::Workload,
    report::number,
};

/// How far `running` and `runnable` may be off where both are long, in parts of a hundred.
const WITHIN_PERCENT: f64 = 1.0;

/// Nothing is allowed here beyond the one percent but what two clocks differ by at a switch, which is
/// little beside such queues, and time that the report itself calls lost: the
/// runs and queues are so long that what differs at each switch is not seen.
#[test]
fn running_and_runnable_are_those_of_the_kernel() {
    let mut workload = Workload::start(&["queue"]);
    let observed = observe(&mut workload, &[], Duration::from_secs(5));
    let workers: Vec<_> = observed.kernel.iter().filter(|done| done.switches > 50).collect();
    assert_eq!(workers.len(), 3);
    for done in workers {
        let thread = observed.report.thread(done.tid);
        let lost_ns = number(&thread["unknown_ns"]);
        // The kernel leaves out of `running` what the hypervisor took.
        for (state, kernel_ns, stolen_ns) in
            [("running", done.running_ns, observed.stolen_ns), ("runnable", done.run_queue_ns, 0)]
        {
            let ours = number(&thread[format!("{state}_ns")]);
            // Few where the machine has nothing else to do; thousands where others preempt.
            let at_switches_ns = done.switches * CLOCK_READ_NS;
            let explained_ns = (lost_ns + stolen_ns + at_switches_ns) as f64;
            let off_ns = off_by(ours, kernel_ns).abs() - explained_ns;
            let percent = off_ns.max(0.0) / kernel_ns as f64 * 100.0;
            println!("{state}: {ours} ns, kernel {kernel_ns} ns, {percent:+.3} % not explained");
            assert!(percent <= WITHIN_PERCENT, "{state} is off by {percent:.2} %: {thread}");
        }
    }
}
