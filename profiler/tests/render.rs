//! Every format from the same small reports, against files under `tests/golden`.
//!
//! `BLESS=1` rewrites the files.

#![expect(clippy::unwrap_used, reason = "a failed test may panic")]

mod support;

use std::{fs, path::Path};

use stallscope::{
    analysis::{
        Report, default_states,
        report::{Frame, FrameKind, Origin, Reason, Role, Site, StackQuality, State},
        select_states, without_plumbing,
    },
    render::{Format, Style, snapshot, summary},
};
use support::{empty, frame, reports, site, starving};

fn rendered(report: &Report, format: Format) -> String {
    let mut bytes = Vec::new();
    format.render()(report, &mut bytes).unwrap();
    String::from_utf8(bytes).unwrap()
}

/// As the pipeline does: pictures show a choice of states and no plumbing.
fn for_format(report: Report, format: Format) -> Report {
    if !format.is_picture() {
        return report;
    }
    let states = default_states(&report);
    without_plumbing(select_states(report, &states))
}

/// inferno's script is not ours, and in a golden file it would hide what is.
fn without_script(svg: &str) -> String {
    match (svg.find("<script"), svg.find("</script>")) {
        (Some(start), Some(end)) => format!("{}{}", &svg[..start], &svg[end + "</script>".len()..]),
        _ => svg.to_owned(),
    }
}

#[test]
fn every_format_is_as_the_golden_files_say() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let bless = std::env::var_os("BLESS").is_some();
    for (name, report) in reports() {
        for format in Format::ALL {
            let text = without_script(&rendered(&for_format(report.clone(), *format), *format));
            let path = dir.join(format!("{name}.{}", format.extension()));
            if bless {
                fs::write(&path, &text).unwrap();
            }
            let expected = fs::read_to_string(&path).unwrap_or_default();
            assert!(
                text == expected,
                "{} differs; BLESS=1 rewrites it. Now it would be:\n{text}",
                path.display()
            );
        }
    }
}

fn folded(states: &[State], sites: Vec<Site>) -> String {
    let pools = starving().pools;
    rendered(&Report { pools, sites, states: states.to_vec(), ..empty() }, Format::Folded)
}

fn blocked(total_ns: u64, frames: Vec<Frame>) -> Site {
    Site { total_ns, frames, ..site(0, State::Blocked, Reason::Futex, Role::Worker) }
}

fn named(function: &str, kind: FrameKind) -> Frame {
    frame(function, Some("/srv/app"), 0x10, kind)
}

fn unnamed(module: Option<&str>, address: u64, kind: FrameKind) -> Frame {
    let origin = if module.is_some() { Origin::Unknown } else { Origin::Library };
    Frame { function: None, origin, ..frame("", module, address, kind) }
}

#[test]
fn folded_lines_keep_their_contract() {
    const POOL: &str = "tokio-runtime-worker;worker";
    let native = |function: &str| named(function, FrameKind::Native);
    let check = |sites: Vec<Site>, expected: &str| {
        assert_eq!(folded(&[State::Blocked], sites), expected.replace("POOL", POOL));
    };
    // Whole microseconds, half up, zero left out.
    check(vec![blocked(1_499, vec![native("f")])], "POOL;f 1\n");
    check(vec![blocked(1_500, vec![native("f")])], "POOL;f 2\n");
    check(vec![blocked(499, vec![native("f")])], "");
    // Equal lines are added up before they are rounded.
    check(vec![blocked(400, vec![native("f")]), blocked(400, vec![native("f")])], "POOL;f 1\n");
    // Separators in names.
    check(vec![blocked(1_000, vec![native("[u8; 8]\r\nx y")])], "POOL;[u8: 8]::x y 1\n");
    // Kinds.
    let kinds = vec![
        native("n"),
        named("i", FrameKind::Inlined),
        named("j", FrameKind::Jit),
        named("p", FrameKind::Interpreted),
        named("k", FrameKind::Kernel),
    ];
    check(vec![blocked(1_000, kinds)], "POOL;n;i_[i];j_[j];p_[j];k_[k] 1\n");
    // No names.
    let bare = vec![
        unnamed(Some("/usr/lib/libx.so.1"), 0x2f40, FrameKind::Native),
        unnamed(Some("[vdso]"), 0xa0, FrameKind::Native),
        unnamed(None, 0x7fff_0000, FrameKind::Jit),
        unnamed(None, 0xffff_ffff_8100_0000, FrameKind::Kernel),
    ];
    check(
        vec![blocked(1_000, bare)],
        "POOL;[libx.so.1+0x2f40];[vdso+0xa0];[memory+0x7fff0000]_[j];[kernel+0xffffffff81000000]_[k] 1\n",
    );
    // Stacks that are not whole.
    for (stack, frames, expected) in [
        (StackQuality::Truncated, vec![native("f")], "POOL;[truncated];f 1\n"),
        (StackQuality::Broken, vec![native("f")], "POOL;[broken];f 1\n"),
        (
            StackQuality::Missing,
            vec![named("k", FrameKind::Kernel)],
            "POOL;[no user stack];k_[k] 1\n",
        ),
        (StackQuality::Missing, vec![], "POOL;[no stack] 1\n"),
    ] {
        check(vec![Site { stack, ..blocked(1_000, frames) }], expected);
    }
}

#[test]
fn several_states_are_told_apart_and_runnable_is_run_queue_time() {
    let f = || vec![named("f", FrameKind::Native)];
    let sites = || {
        let waiting = Site { runnable_ns: 7_000, ..blocked(2_000, f()) };
        let runnable = Site {
            runnable_ns: 5_000,
            frames: f(),
            ..site(1, State::Runnable, Reason::Other, Role::Other)
        };
        vec![waiting, runnable]
    };
    let both = folded(&[State::Blocked, State::Runnable], sites());
    assert_eq!(both, "orders-api;other;runnable;f 5\ntokio-runtime-worker;worker;blocked;f 2\n");
    // What was selected decides, not what happens to be there.
    let all = folded(State::ALL, vec![blocked(2_000, f())]);
    assert_eq!(all, "tokio-runtime-worker;worker;blocked;f 2\n");
}

/// The boxes of a picture: hover text and left edge in microseconds.
fn boxes(svg: &str) -> Vec<(String, u64)> {
    svg.split("<g><title>")
        .skip(1)
        .map(|part| {
            let x = part.split("fg:x=\"").nth(1).unwrap().split('"').next().unwrap();
            (part.split("</title>").next().unwrap().to_owned(), x.parse().unwrap())
        })
        .collect()
}

#[test]
fn pictures_keep_frames_whole_and_put_the_heaviest_first() {
    let native =
        |functions: &[&str]| functions.iter().map(|f| named(f, FrameKind::Native)).collect();
    let sites = vec![
        // In the order of bytes `a-b` comes between the leaf `a` and the caller `a`.
        blocked(1_000_000, native(&["a"])),
        blocked(2_000_000, native(&["a-b"])),
        blocked(4_000_000, native(&["a", "x"])),
        // inferno would take these for a comment, a comparison and broken XML.
        blocked(3_000_000, native(&["# f", "level 9"])),
        blocked(500_000, native(&["<&\u{1}>\"'"])),
    ];
    let pools = starving().pools;
    let report = Report { pools, sites, states: vec![State::Blocked], ..empty() };
    let found = boxes(&rendered(&report, Format::Svg));
    for expected in [
        ("a (5.00 ms, 47.62%)", 0),
        ("x (4.00 ms, 38.10%)", 0),
        ("# f (3.00 ms, 28.57%)", 5_000),
        ("level\u{a0}9 (3.00 ms, 28.57%)", 5_000),
        ("a-b (2.00 ms, 19.05%)", 8_000),
        ("&lt;&amp;\u{fffd}&gt;&quot;&apos; (500 µs, 4.76%)", 10_000),
        ("all (10.5 ms, 100%)", 0),
    ] {
        let expected = (expected.0.to_owned(), expected.1);
        assert!(found.contains(&expected), "{expected:?} is not in {found:#?}");
    }
}

#[test]
fn a_picture_of_nothing_says_so_in_words() {
    for (report, expected) in [
        (empty(), "No async runtime or thread pool was recognised"),
        (support::healthy(), "Nothing was blocked"),
        (Report { sites: vec![], ..starving() }, "Nothing to show"),
    ] {
        let svg = rendered(&for_format(report, Format::Svg), Format::Svg);
        assert!(svg.contains(expected), "{svg}");
        assert!(svg.starts_with("<?xml") && svg.ends_with("</svg>\n"), "{svg}");
    }
}

/// The first paragraph of the summary in one line.
fn headline(report: &Report) -> String {
    let text = rendered(report, Format::Text);
    text.split("\n\n").next().unwrap().replace('\n', " ")
}

#[test]
fn the_first_line_says_what_is_the_matter() {
    let by = "62.5 % in `price::lookup` sleeping (src/price.rs:88)";
    let starved = "pool tokio-runtime-worker: 4 of 4 workers blocked for 2.31 s in 3 windows; 80.0 % in \
                   `price::lookup` sleeping (src/price.rs:88)";
    assert_eq!(headline(&starving()), starved);

    // Windows that are a small part of the recording are not what the pool suffers from.
    let mut report = starving();
    report.starvation.truncate(1);
    report.starvation[0].end_ns = report.starvation[0].start_ns + 2_000_000;
    let expected = format!(
        "pool tokio-runtime-worker: workers blocked 60.0 % of their time, all 4 at once for 2.00 ms in \
         1 window; {by}"
    );
    assert_eq!(headline(&report), expected);

    report.starvation.clear();
    report.pools[0].blocked_curve = vec![(0, 1, 4), (1_000, 3, 4), (2_000, 0, 4)];
    let expected = format!(
        "pool tokio-runtime-worker: workers blocked 60.0 % of their time, at most 3 of 4 at once; {by}"
    );
    assert_eq!(headline(&report), expected);

    report.pools[0].workers = 1;
    assert!(headline(&report).contains("its worker blocked 60.0 % of its time, never for"));

    report.quality.unfinished = true;
    let expected = format!("pool tokio-runtime-worker: workers blocked for at least 24.0 s; {by}");
    assert_eq!(headline(&report), expected);

    let none = "Nothing was blocked: no worker waited inside a task for 100 µs or longer.";
    assert_eq!(headline(&support::healthy()), none);
    let none = "No async runtime or thread pool was recognised, so no wait can be called blocked.";
    assert_eq!(headline(&empty()), none);
}

#[test]
fn windows_have_no_holders_to_be_listed_where_blocked_is_not_selected() {
    let listed = |report: &Report| rendered(report, Format::Text).contains("When no worker");
    assert!(listed(&starving()));
    assert!(!listed(&select_states(starving(), &[State::Idle])));
}

#[test]
fn snapshots_are_as_the_golden_files_say() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    for (name, report) in [("hung", support::hung()), ("locked", support::locked())] {
        let mut bytes = Vec::new();
        snapshot(&without_plumbing(report), &mut bytes, Style::Plain).unwrap();
        let text = String::from_utf8(bytes).unwrap();
        let path = dir.join(format!("{name}.snapshot.txt"));
        if std::env::var_os("BLESS").is_some() {
            fs::write(&path, &text).unwrap();
        }
        let expected = fs::read_to_string(&path).unwrap_or_default();
        assert!(text == expected, "BLESS=1 rewrites it. Now it would be:\n{text}");
    }
}

#[test]
fn the_summary_tells_of_workers_that_were_stuck_throughout() {
    let said = |report: &Report| rendered(report, Format::Text).replace('\n', " ");
    let stuck = "2 workers were blocked already when the recording began, for about 62.0 s by \
                 then, and still when it ended; to see them: `sudo stallscope snapshot -p 4242`";
    let hung = support::hung();
    assert!(said(&hung).contains(stuck), "{}", said(&hung));
    assert!(!said(&select_states(hung, &[State::Idle])).contains("already when"));
    assert!(!said(&starving()).contains("already when"));
}

#[test]
fn colours_are_only_for_terminals() {
    let mut bytes = Vec::new();
    summary(&starving(), &mut bytes, Style::Terminal).unwrap();
    let coloured = String::from_utf8(bytes).unwrap();
    let plain = rendered(&starving(), Format::Text);
    assert!(coloured.contains("\x1b[1;31m4 of 4 workers blocked"), "{coloured}");
    assert!(!plain.contains('\x1b'), "{plain}");
    let mut stripped = coloured;
    for escape in ["\x1b[1;31m", "\x1b[1m", "\x1b[2m", "\x1b[0m"] {
        stripped = stripped.replace(escape, "");
    }
    assert_eq!(stripped, plain);
}
