//! Records services from crates.io that were not written for this, and counts the stacks that are complete.

use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::run;

/// A Tokio service.
struct Service {
    /// Its crate, and the version that is installed.
    name: &'static str,
    version: &'static str,
    /// Its program, with arguments; `{port}` and `{files}` are filled in.
    program: &'static str,
    arguments: &'static [&'static str],
    load: Load,
}

/// What its clients do.
enum Load {
    /// One connection for all requests; each is answered in one piece.
    Conversation(&'static [Exchange]),
    /// One connection a request, read to its end.
    Connections(&'static [Exchange]),
}

/// A request, and how its answer begins.
struct Exchange {
    request: &'static [u8],
    answer: &'static [u8],
}

const SERVICES: [Service; 2] = [
    Service {
        name: "mini-redis",
        version: "0.4.1",
        program: "mini-redis-server",
        arguments: &["--port", "{port}"],
        load: Load::Conversation(&[
            Exchange {
                request: b"*3\r\n$3\r\nSET\r\n$3\r\nkey\r\n$5\r\nvalue\r\n",
                answer: b"+OK\r\n",
            },
            Exchange { request: b"*2\r\n$3\r\nGET\r\n$3\r\nkey\r\n", answer: b"$5\r\nvalue\r\n" },
        ]),
    },
    Service {
        name: "dufs",
        version: "0.47.0",
        program: "dufs",
        arguments: &["--bind", "127.0.0.1", "--port", "{port}", "{files}"],
        load: Load::Connections(&[
            Exchange {
                request: b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
                answer: b"HTTP/1.1 200",
            },
            Exchange {
                request: b"GET /large HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
                answer: b"HTTP/1.1 200",
            },
            Exchange {
                request: b"GET /none HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
                answer: b"HTTP/1.1 404",
            },
        ]),
    },
];

const CLIENTS: usize = 8;

/// What a client rests after an answer: a service that never waits shows no stacks.
const REST: Duration = Duration::from_millis(2);

const SECONDS: &str = "10";

/// How long a service may take to listen.
const LISTEN_LIMIT: Duration = Duration::from_secs(10);

/// Bytes of the large file: more than one read.
const LARGE: usize = 1 << 20;

/// The part of the stacks that has to be complete.
const COMPLETE_AT_LEAST: f64 = 0.999;

/// The part of the report that counts here.
#[derive(Deserialize)]
struct Report {
    quality: Quality,
}

#[derive(Deserialize)]
struct Quality {
    user_stacks: Stacks,
}

#[derive(Clone, Copy, Deserialize)]
struct Stacks {
    complete: u64,
    truncated: u64,
    broken: u64,
    missing: u64,
}

impl Stacks {
    fn all(self) -> u64 {
        self.complete + self.truncated + self.broken + self.missing
    }

    fn complete_share(self) -> f64 {
        self.complete as f64 / self.all() as f64
    }
}

/// Builds the services as they come, runs and records each under a small load, and fails if the
/// stacks of one are not complete.
pub fn run() -> Result<()> {
    run::run(&mut run::cargo(&["build", "--release", "--locked", "-p", "stallscope"]))?;
    let mut rows = Vec::new();
    for service in &SERVICES {
        install(service)?;
        rows.push((service, record(service).with_context(|| service.name.to_owned())?));
    }
    println!(
        "\n{:<20} {:>9} {:>9} {:>10} {:>9} {:>9} {:>9} {:>9}",
        "service", "requests", "waits", "complete", "", "truncated", "broken", "missing"
    );
    for (service, (requests, stacks)) in &rows {
        println!(
            "{:<20} {requests:>9} {:>9} {:>10} {:>7.3} % {:>9} {:>9} {:>9}",
            format!("{} {}", service.name, service.version),
            stacks.all(),
            stacks.complete,
            stacks.complete_share() * 100.0,
            stacks.truncated,
            stacks.broken,
            stacks.missing
        );
    }
    // A service without waits has no complete stacks either.
    let short = |(_, (_, stacks)): &&(&Service, (u64, Stacks))| {
        stacks.all() == 0 || stacks.complete_share() < COMPLETE_AT_LEAST
    };
    let short: Vec<&str> = rows.iter().filter(short).map(|(service, _)| service.name).collect();
    if !short.is_empty() {
        bail!(
            "less than {} % of the stacks of {} are complete; for the code without unwind \
             information: stallscope inspect tables FILE",
            COMPLETE_AT_LEAST * 100.0,
            short.join(" and ")
        );
    }
    Ok(())
}

fn folder() -> PathBuf {
    run::target_dir().join("services")
}

/// Does nothing if it is installed.
fn install(service: &Service) -> Result<()> {
    let mut install = run::cargo(&["install", "--locked", service.name]);
    install.args(["--version", service.version, "--root"]).arg(folder());
    run::run(install.env("CARGO_TARGET_DIR", folder().join("build")))
}

/// How many requests it answered, and what became of the stacks of its waits.
fn record(service: &Service) -> Result<(u64, Stacks)> {
    let files = folder().join("files");
    fs::create_dir_all(&files).with_context(|| format!("cannot make {}", files.display()))?;
    fs::write(files.join("large"), vec![b'x'; LARGE]).context("cannot write the large file")?;
    let address = free_address()?;
    let mut running = start(service, address, &files)?;
    let loaded = under_load(&service.load, address, || {
        let json = folder().join(service.name).with_extension("json");
        let mut record = run::as_root(run::target_dir().join("release/stallscope"));
        record.args(["record", "--force", "-d", SECONDS, "--min-block", "0", "-p"]);
        run::run(record.arg(running.id().to_string()).arg("-o").arg(&json))?;
        let text = fs::read(&json).with_context(|| format!("cannot read {}", json.display()))?;
        let report: Report =
            serde_json::from_slice(&text).context("the report lacks its quality")?;
        Ok(report.quality.user_stacks)
    });
    let ended = running.try_wait().context("cannot wait for the service")?;
    running.kill().and_then(|()| running.wait()).context("cannot end the service")?;
    if let Some(status) = ended {
        bail!("it ended while it was recorded: {status}");
    }
    loaded
}

/// The address of a port that nobody listens on now.
fn free_address() -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").context("cannot listen on loopback")?;
    listener.local_addr().context("cannot tell the address of a socket")
}

/// Runs it, up to its first accepted connection.
fn start(service: &Service, address: SocketAddr, files: &Path) -> Result<Child> {
    let mut command = Command::new(folder().join("bin").join(service.program));
    for argument in service.arguments {
        let argument = argument.replace("{port}", &address.port().to_string());
        command.arg(argument.replace("{files}", &files.to_string_lossy()));
    }
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().context("cannot start it")?;
    let deadline = Instant::now() + LISTEN_LIMIT;
    while TcpStream::connect(address).is_err() {
        let ended = child.try_wait().context("cannot wait for it")?;
        if ended.is_some() || Instant::now() > deadline {
            // It may have ended by itself.
            let _ = child.kill();
            let status = child.wait().context("cannot wait for it")?;
            bail!("it does not listen on {address}: {status}");
        }
        thread::sleep(Duration::from_millis(20));
    }
    Ok(child)
}

/// Does `work` while clients keep asking. Fails if one of them gets a wrong answer.
fn under_load(
    load: &Load,
    address: SocketAddr,
    work: impl FnOnce() -> Result<Stacks>,
) -> Result<(u64, Stacks)> {
    let (stop, answered) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        let client = || ask(load, address, &stop, &answered);
        let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(client)).collect();
        let done = work();
        stop.store(true, Ordering::Relaxed);
        for client in clients {
            client.join().expect("a client does not panic").context("a client failed")?;
        }
        Ok((answered.load(Ordering::Relaxed), done?))
    })
}

fn ask(load: &Load, address: SocketAddr, stop: &AtomicBool, answered: &AtomicU64) -> Result<()> {
    let mut conversation = match load {
        Load::Conversation(_) => Some(TcpStream::connect(address)?),
        Load::Connections(_) => None,
    };
    let (Load::Conversation(exchanges) | Load::Connections(exchanges)) = load;
    for Exchange { request, answer } in exchanges.iter().cycle() {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let mut got = vec![0; answer.len()];
        if let Some(stream) = &mut conversation {
            stream.write_all(request)?;
            stream.read_exact(&mut got)?;
        } else {
            let mut stream = TcpStream::connect(address)?;
            stream.write_all(request)?;
            stream.read_exact(&mut got)?;
            std::io::copy(&mut stream, &mut std::io::sink())?;
        }
        if got != *answer {
            bail!("it answered {:?}", String::from_utf8_lossy(&got));
        }
        answered.fetch_add(1, Ordering::Relaxed);
        thread::sleep(REST);
    }
    Ok(())
}
