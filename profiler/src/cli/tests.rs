//! What the command line accepts and refuses.

#![expect(clippy::unwrap_used, reason = "a failed test may panic")]

use clap::{CommandFactory, error::ErrorKind};

use super::*;

fn parse(line: &str) -> Result<Command, clap::Error> {
    Cli::try_parse_from(line.split(' ')).map(|cli| cli.command)
}

#[test]
fn the_definition_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn wrong_usage_exits_with_2() {
    for (line, expected) in [
        ("stallscope", ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand),
        ("stallscope record", ErrorKind::MissingRequiredArgument),
        ("stallscope record -p 1 -n api", ErrorKind::ArgumentConflict),
        ("stallscope record -p 1 -- true", ErrorKind::ArgumentConflict),
        ("stallscope record -p 0", ErrorKind::ValueValidation),
        ("stallscope record -p 1 -d 0", ErrorKind::ValueValidation),
        ("stallscope record -p 1 --min-block 5", ErrorKind::ValueValidation),
        ("stallscope record -p 1 --state busy", ErrorKind::InvalidValue),
        ("stallscope snapshot", ErrorKind::MissingRequiredArgument),
        ("stallscope snapshot -p 1 -n api", ErrorKind::ArgumentConflict),
        ("stallscope report", ErrorKind::MissingRequiredArgument),
        ("stallscope report a.stall --format svg -o b.svg", ErrorKind::ArgumentConflict),
        ("stallscope report a.stall --format png", ErrorKind::InvalidValue),
        ("stallscope inspect recording", ErrorKind::MissingRequiredArgument),
        ("stallscope inspect tables", ErrorKind::MissingRequiredArgument),
        ("stallscope inspect tables -p 1 libc.so.6", ErrorKind::ArgumentConflict),
    ] {
        let error = parse(line).unwrap_err();
        assert_eq!((error.kind(), error.exit_code()), (expected, 2), "{line}: {error}");
    }
}

#[test]
fn exactly_one_target_is_chosen() {
    for (line, expected) in [
        ("stallscope record -p 42", TargetChoice::Pid(Pid(42))),
        ("stallscope record --name api -d 10", TargetChoice::Name("api".to_owned())),
        (
            "stallscope record -d 1 -- api -p 1 --force",
            TargetChoice::Command(["api", "-p", "1", "--force"].map(OsString::from).to_vec()),
        ),
    ] {
        let Command::Record(args) = parse(line).unwrap() else { panic!("{line}") };
        assert_eq!(args.target.choice(), expected, "{line}");
        assert!(!args.output.force, "{line}");
    }
}

#[test]
fn states_add_up_and_none_means_the_default() {
    for (options, expected) in [
        ("", None),
        (" --state blocked", Some(vec![State::Blocked])),
        (
            " --state blocked,idle --state unknown",
            Some(vec![State::Blocked, State::Idle, State::Unknown]),
        ),
    ] {
        let Command::Report(args) = parse(&format!("stallscope report a.stall{options}")).unwrap()
        else {
            panic!("{options}")
        };
        let expected = Selection { states: expected, ..Selection::default() };
        assert_eq!(args.select.selection(), expected, "{options}");
    }
    for command in ["report a.stall", "record -p 1"] {
        let select = match parse(&format!("stallscope {command} --full-stacks")).unwrap() {
            Command::Report(args) => args.select,
            Command::Record(args) => args.select,
            _ => panic!("{command}"),
        };
        assert!(select.selection().full_stacks, "{command}");
    }
}
