//! Recording to bytes: names, meaning, numbers, then every file that was asked for.

use std::{
    borrow::Cow,
    fs::{self, File},
    io::{self, BufWriter, IsTerminal, Write},
    path::{Path, PathBuf},
};

use anyhow::Context;

use crate::{
    analysis::{self, Report, Selection, report::State},
    cli::ReportArgs,
    failure::Failure,
    recording::{Recording, file, redact::Redaction},
    render::{self, Format, Style},
    symbols::{self, LiveFiles, SymbolTable},
    terminal,
};

/// The file name extension of a recording.
pub const RECORDING_EXTENSION: &str = "stall";

/// The files to be written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outputs {
    /// Reports, each with its format.
    pub files: Vec<(PathBuf, Format)>,
    /// The recording itself; none where one is being reported.
    pub recording: Option<PathBuf>,
}

impl Outputs {
    /// What `record -o PATH...` writes. `stem` names the recording and the picture where nothing
    /// was asked for. An unknown extension is [`Failure::Usage`].
    pub fn of_record(paths: &[PathBuf], stem: &str) -> anyhow::Result<Self> {
        let mut outputs = Self::parse(paths)?;
        if paths.is_empty() {
            outputs.files.push((format!("{stem}.{}", Format::Svg.extension()).into(), Format::Svg));
        }
        outputs.recording = Some(recording_path(&outputs, stem));
        Ok(outputs)
    }

    /// What `snapshot -o PATH...` writes: nothing where nothing was asked for. An unknown extension
    /// is [`Failure::Usage`].
    pub fn of_snapshot(paths: &[PathBuf], stem: &str) -> anyhow::Result<Self> {
        let mut outputs = Self::parse(paths)?;
        if !paths.is_empty() {
            outputs.recording = Some(recording_path(&outputs, stem));
        }
        Ok(outputs)
    }

    /// What `report FILE -o PATH...` writes. An unknown extension is [`Failure::Usage`].
    pub fn of_report(paths: &[PathBuf]) -> anyhow::Result<Self> {
        let outputs = Self::parse(paths)?;
        match &outputs.recording {
            Some(path) => Err(usage(format!(
                "{}: a report is made from a recording and cannot be one; known formats are {}",
                path.display(),
                extensions()
            ))),
            None => Ok(outputs),
        }
    }

    fn parse(paths: &[PathBuf]) -> anyhow::Result<Self> {
        let mut outputs = Self::default();
        for path in paths {
            if path.extension().is_some_and(|extension| extension == RECORDING_EXTENSION) {
                if let Some(first) = outputs.recording.replace(path.clone()) {
                    return Err(usage(format!(
                        "{} and {}: there is only one recording to write",
                        first.display(),
                        path.display()
                    )));
                }
            } else if let Some(format) = Format::of(path) {
                outputs.files.push((path.clone(), format));
            } else {
                return Err(usage(format!(
                    "{}: the extension does not name a format; known are {} and, for the recording, \
                     .{RECORDING_EXTENSION}",
                    path.display(),
                    extensions()
                )));
            }
        }
        Ok(outputs)
    }

    fn paths(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().map(|(path, _)| path.as_path()).chain(self.recording.as_deref())
    }
}

/// What to make of a recording.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// The files to be written.
    pub outputs: Outputs,
    /// What they show.
    pub selection: Selection,
}

/// `stallscope report`.
pub fn run(args: &ReportArgs) -> anyhow::Result<()> {
    let outputs = Outputs::of_report(&args.output.output)?;
    check_paths(&outputs, args.output.force)?;
    let mut recording = file::read(&args.recording)?;
    if args.output.redact {
        Redaction::default().recording(&mut recording);
    }
    let names = symbols::resolve(&recording, &LiveFiles::new(), &args.symbols.options());
    let request = Request { outputs, selection: args.select.selection() };
    let report = write_outputs(&recording, &names, &request)?;
    for (path, _) in &request.outputs.files {
        terminal::say(&format!("wrote {}", path.display()));
    }
    match args.format {
        Some(format) => print(|out| write(&report, format, &request.selection, out)),
        None if request.outputs.files.is_empty() => {
            print_summary(&report, request.selection.states.as_deref())
        }
        None => Ok(()),
    }
}

/// Analyses a recording and writes every report of `request`; the recording itself is not written
/// here. Returns the report of the selected pools and threads, in all states.
pub fn write_outputs(
    recording: &Recording,
    names: &SymbolTable,
    request: &Request,
) -> anyhow::Result<Report> {
    let threads_and_pools = Selection { states: None, ..request.selection.clone() };
    let report = analysis::analyze_selected(recording, names, &threads_and_pools)?;
    for (path, format) in &request.outputs.files {
        write_file(path, |out| write(&report, *format, &request.selection, out))?;
    }
    Ok(report)
}

/// Prints the summary on stdout, with colours if it is a terminal that wants them.
pub fn print_summary(report: &Report, states: Option<&[State]>) -> anyhow::Result<()> {
    print(|out| render::summary(&in_states(report, states), out, stdout_style()))
}

/// Colours if stdout is a terminal that wants them.
pub fn stdout_style() -> Style {
    let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    if io::stdout().is_terminal() && !plain { Style::Terminal } else { Style::Plain }
}

/// Fails with [`Failure::Usage`] if a file cannot be written: its directory is missing or not
/// writable, it is no regular file, it exists and `force` is off, or it is named twice.
pub fn check_paths(outputs: &Outputs, force: bool) -> anyhow::Result<()> {
    let mut seen = Vec::new();
    for path in outputs.paths() {
        if seen.contains(&path) {
            return Err(usage(format!("{}: asked for twice", path.display())));
        }
        seen.push(path);
        check_path(path, force)?;
    }
    Ok(())
}

fn check_path(path: &Path, force: bool) -> anyhow::Result<()> {
    let shown = path.display();
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => {
            return Err(usage(format!("{shown}: is a directory; name a file in it")));
        }
        Ok(found) if !found.is_file() && !found.is_symlink() => {
            return Err(usage(format!("{shown}: is not a regular file; choose another name")));
        }
        Ok(_) if !force => {
            return Err(usage(format!("{shown}: exists; choose another name or add --force")));
        }
        _ => {}
    }
    let dir = directory(path);
    if !dir.is_dir() {
        let dir = dir.display();
        return Err(usage(format!("{shown}: there is no directory {dir}; `mkdir -p {dir}`")));
    }
    // Only making a file proves that one can be made: for root, permissions say nothing about
    // read-only mounts, quotas or /proc.
    let probe = partial(path);
    File::create_new(&probe).and_then(|_| fs::remove_file(&probe)).map_err(|error| {
        let dir = dir.display();
        usage(format!("{shown}: cannot write in {dir} ({error}); choose another path"))
    })
}

/// Where the recording goes: where it was asked to, else beside the first report (`X.svg` has
/// `X.stall`), else `default_name.stall`.
pub fn recording_path(outputs: &Outputs, default_name: &str) -> PathBuf {
    match (&outputs.recording, outputs.files.first()) {
        (Some(path), _) => path.clone(),
        (None, Some((first, _))) => first.with_extension(RECORDING_EXTENSION),
        (None, None) => format!("{default_name}.{RECORDING_EXTENSION}").into(),
    }
}

fn write(
    report: &Report,
    format: Format,
    selection: &Selection,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let by_default = (format.is_picture()).then(|| analysis::default_states(report));
    let report = in_states(report, selection.states.as_deref().or(by_default.as_deref()));
    if format.is_picture() && !selection.full_stacks {
        return format.render()(&analysis::without_plumbing(report.into_owned()), out);
    }
    format.render()(&report, out)
}

fn in_states<'report>(report: &'report Report, states: Option<&[State]>) -> Cow<'report, Report> {
    match states {
        Some(states) => Cow::Owned(analysis::select_states(report.clone(), states)),
        None => Cow::Borrowed(report),
    }
}

/// Writes beside `path` and renames: whoever opens `path` finds a whole file or the old one.
fn write_file(
    path: &Path,
    write: impl FnOnce(&mut dyn Write) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let partial = partial(path);
    let written = write_and_rename(&partial, path, write);
    if written.is_err() {
        // It may not have been made at all; the error to report is the one that there is.
        let _ = fs::remove_file(&partial);
    }
    written.with_context(|| format!("cannot write {}", path.display()))
}

fn write_and_rename(
    partial: &Path,
    path: &Path,
    write: impl FnOnce(&mut dyn Write) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    // `create_new` follows no link that somebody else put there for root to write through.
    let mut out = BufWriter::new(File::create_new(partial)?);
    write(&mut out)?;
    let file = out.into_inner().map_err(io::IntoInnerError::into_error)?;
    file::give_to_invoker(&file)?;
    fs::rename(partial, path)?;
    Ok(())
}

/// Writes to stdout; a reader that has seen enough (`| head`) is no failure.
pub(crate) fn print(
    write: impl FnOnce(&mut dyn Write) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut out = BufWriter::new(io::stdout().lock());
    let printed = write(&mut out).and_then(|()| Ok(out.flush()?));
    match printed {
        Err(error) if is_closed_pipe(&error) => Ok(()),
        printed => printed.context("cannot write to stdout"),
    }
}

fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        let io = cause.downcast_ref::<io::Error>().map(io::Error::kind);
        let json =
            cause.downcast_ref::<serde_json::Error>().and_then(serde_json::Error::io_error_kind);
        io.or(json) == Some(io::ErrorKind::BrokenPipe)
    })
}

/// What a file is called until it is whole.
fn partial(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    directory(path).join(format!(".{name}.{}.partial", std::process::id()))
}

fn directory(path: &Path) -> &Path {
    match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    }
}

fn extensions() -> String {
    let all = Format::ALL.iter().map(|format| format!(".{}", format.extension()));
    all.collect::<Vec<_>>().join(" ")
}

fn usage(message: String) -> anyhow::Error {
    Failure::Usage(message).into()
}

#[cfg(test)]
mod tests;
