//! A small Tokio service that takes orders and blocks its workers in four ways, and its load.
//!
//! Every wait is in a function of its own, which measures itself. `black_box` after a wait keeps it
//! from being a tail call, which would leave no frame to be seen.

use std::{
    collections::BTreeMap,
    future::Future,
    hint::black_box,
    io::{self, BufRead, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    pin::pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
    task::{Context as PollContext, Poll, Wake, Waker},
    thread::{self, Thread},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    runtime,
    sync::oneshot,
};

const WORKERS: usize = 4;

/// Connections that send one order after the other, and their pause: about half of the workers'
/// time is blocked, and now and then all of them are.
const CLIENTS: usize = 8;
const PAUSE: Duration = Duration::from_millis(5);

const LAYOUT: Duration = Duration::from_millis(4);
const STOCK_TAKING: Duration = Duration::from_millis(1);
const RESTOCK_EVERY: Duration = Duration::from_millis(3);
const QUERY: Duration = Duration::from_millis(3);
const PRICING: Duration = Duration::from_millis(2);
const ARCHIVING: Duration = Duration::from_millis(3);

/// One call of a function that waits, summed up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sum {
    /// Calls that returned.
    pub count: u64,
    /// `CLOCK_MONOTONIC` from before the calls to after them.
    pub total_ns: u64,
    /// Whether it waits where waiting is right.
    pub allowed: bool,
}

/// Sums by the path of the function, as a report names it.
pub type Sums = BTreeMap<String, Sum>;

/// The hidden subcommand: prints `ready PID PORT`, begins at the line `go`, ends at `stop` or at the
/// end of stdin, and prints [`Sums`] as one line of JSON.
pub fn run() -> Result<()> {
    let shop = Shop::open()?;
    say(&format!("ready {} {}", std::process::id(), shop.address.port()))?;
    let mut words = io::stdin().lock().lines();
    if words.next().transpose().context("cannot read stdin")?.is_some() {
        let load = Load::start(shop.address)?;
        words.next().transpose().context("cannot read stdin")?;
        load.stop()?;
    }
    shop.close();
    say(&serde_json::to_string(&sums()).context("the sums are not JSON")?)
}

fn say(line: &str) -> Result<()> {
    let mut stdout = io::stdout();
    writeln!(stdout, "{line}").and_then(|()| stdout.flush()).context("cannot write to stdout")
}

/// The service: a Tokio runtime that takes orders on a loopback port.
struct Shop {
    runtime: runtime::Runtime,
    address: SocketAddr,
}

/// What the handlers of orders need.
struct Backends {
    inventory: Arc<Mutex<u64>>,
    database: SocketAddr,
    connections: Mutex<Vec<TcpStream>>,
    pricing: mpsc::Sender<oneshot::Sender<u64>>,
}

impl Shop {
    fn open() -> Result<Self> {
        let backends = Arc::new(Backends::start()?);
        let runtime = runtime::Builder::new_multi_thread()
            .worker_threads(WORKERS)
            .enable_all()
            .build()
            .context("cannot start a Tokio runtime")?;
        let listener = runtime
            .block_on(tokio::net::TcpListener::bind(("127.0.0.1", 0)))
            .context("cannot listen on loopback")?;
        let address = listener.local_addr().context("cannot tell the address of a socket")?;
        runtime.spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                tokio::spawn(take_orders(connection, Arc::clone(&backends)));
            }
        });
        Ok(Self { runtime, address })
    }

    fn close(self) {
        self.runtime.shutdown_background();
    }
}

/// An order is a number, and so is its confirmation.
async fn take_orders(mut connection: tokio::net::TcpStream, backends: Arc<Backends>) {
    while let Ok(order) = connection.read_u64().await {
        let Ok(confirmation) = handle_order(order, &backends).await else { return };
        if connection.write_u64(confirmation).await.is_err() {
            return;
        }
    }
}

async fn handle_order(order: u64, backends: &Backends) -> io::Result<u64> {
    match order % 5 {
        0 => Ok(RENDER_INVOICE.time(|| render_invoice(order))),
        1 => Ok(UPDATE_INVENTORY.time(|| update_inventory(&backends.inventory))),
        2 => LOAD_CUSTOMER.time(|| load_customer(backends, order)),
        3 => CALL_PRICING_BLOCKING.time(|| call_pricing_blocking(backends)),
        _ => {
            let archived =
                tokio::task::spawn_blocking(move || ARCHIVE_ORDER.time(|| archive_order(order)));
            archived.await.map_err(io::Error::other)
        }
    }
}

/// Blocks the worker in `thread::sleep`.
#[inline(never)]
fn render_invoice(order: u64) -> u64 {
    thread::sleep(LAYOUT);
    black_box(order)
}

/// Blocks the worker in a lock that others hold, and lets others wait for it.
#[inline(never)]
fn update_inventory(inventory: &Mutex<u64>) -> u64 {
    let mut pieces = inventory.lock().unwrap_or_else(PoisonError::into_inner);
    thread::sleep(STOCK_TAKING);
    *pieces = pieces.saturating_sub(1);
    black_box(*pieces)
}

/// Blocks the worker in a read of a socket.
#[inline(never)]
fn load_customer(backends: &Backends, order: u64) -> io::Result<u64> {
    let mut connection = backends.connection()?;
    connection.write_all(&order.to_be_bytes())?;
    let mut customer = [0; 8];
    connection.read_exact(&mut customer)?;
    backends.give_back(connection);
    Ok(black_box(u64::from_be_bytes(customer)))
}

/// Blocks the worker in a `block_on` inside a task: sync over async.
#[inline(never)]
fn call_pricing_blocking(backends: &Backends) -> io::Result<u64> {
    let (answer, price) = oneshot::channel();
    backends.pricing.send(answer).map_err(io::Error::other)?;
    black_box(block_on(price).map_err(io::Error::other))
}

/// Waits on the blocking pool, where waiting is right.
#[inline(never)]
fn archive_order(order: u64) -> u64 {
    thread::sleep(ARCHIVING);
    black_box(order)
}

/// Polls the future and parks the thread in between, like the `block_on` of `futures`.
fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut PollContext::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}

impl Backends {
    fn start() -> Result<Self> {
        let inventory = Arc::new(Mutex::new(1_000_000));
        let restocked = Arc::clone(&inventory);
        spawn("demo-restock", move || restock(&restocked))?;
        let listener = TcpListener::bind("127.0.0.1:0").context("cannot listen on loopback")?;
        let database = listener.local_addr().context("cannot tell the address of a socket")?;
        spawn("demo-database", move || serve_database(&listener))?;
        let (pricing, requests) = mpsc::channel();
        spawn("demo-pricing", move || answer_pricing(&requests))?;
        Ok(Self { inventory, database, connections: Mutex::default(), pricing })
    }

    fn connection(&self) -> io::Result<TcpStream> {
        let kept = self.connections.lock().unwrap_or_else(PoisonError::into_inner).pop();
        kept.map_or_else(|| TcpStream::connect(self.database), Ok)
    }

    fn give_back(&self, connection: TcpStream) {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
    }
}

/// Holds the inventory's lock every few milliseconds.
fn restock(inventory: &Mutex<u64>) {
    loop {
        let mut pieces = inventory.lock().unwrap_or_else(PoisonError::into_inner);
        thread::sleep(STOCK_TAKING);
        *pieces += 1;
        drop(pieces);
        thread::sleep(RESTOCK_EVERY);
    }
}

/// A slow database: a thread a connection, each query answered after a while.
fn serve_database(listener: &TcpListener) {
    for mut connection in listener.incoming().flatten() {
        let answers = move || {
            let mut query = [0; 8];
            while connection.read_exact(&mut query).is_ok() {
                thread::sleep(QUERY);
                if connection.write_all(&query).is_err() {
                    return;
                }
            }
        };
        if spawn("demo-database", answers).is_err() {
            return;
        }
    }
}

/// Answers each request for a price after a while, several at a time.
fn answer_pricing(requests: &mpsc::Receiver<oneshot::Sender<u64>>) {
    while let Ok(first) = requests.recv() {
        thread::sleep(PRICING);
        for answer in std::iter::once(first).chain(requests.try_iter()) {
            // The order may have been given up meanwhile.
            let _ = answer.send(42);
        }
    }
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<thread::JoinHandle<()>> {
    let thread = thread::Builder::new().name(name.to_owned());
    thread.spawn(work).with_context(|| format!("cannot start the thread {name}"))
}

/// Clients on a runtime of their own, which never blocks.
struct Load {
    stopping: Arc<AtomicBool>,
    thread: thread::JoinHandle<()>,
}

impl Load {
    fn start(shop: SocketAddr) -> Result<Self> {
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("cannot start a Tokio runtime")?;
        let stopping = Arc::new(AtomicBool::new(false));
        let orders = Arc::new(AtomicU64::new(0));
        let ending = Arc::clone(&stopping);
        let thread = spawn("demo-load", move || {
            runtime.block_on(async {
                let clients: Vec<_> = (0..CLIENTS)
                    .map(|_| {
                        let (orders, ending) = (Arc::clone(&orders), Arc::clone(&ending));
                        tokio::spawn(async move { order_on(shop, &orders, &ending).await })
                    })
                    .collect();
                for client in clients {
                    // A client whose connection broke has no more to do.
                    let _ = client.await;
                }
            });
        })?;
        Ok(Self { stopping, thread })
    }

    /// Returns when every order that was sent is confirmed.
    fn stop(self) -> Result<()> {
        self.stopping.store(true, Ordering::Relaxed);
        self.thread.join().ok().context("the demo's load panicked")
    }
}

async fn order_on(shop: SocketAddr, orders: &AtomicU64, ending: &AtomicBool) -> io::Result<()> {
    let mut connection = tokio::net::TcpStream::connect(shop).await?;
    while !ending.load(Ordering::Relaxed) {
        connection.write_u64(orders.fetch_add(1, Ordering::Relaxed)).await?;
        connection.read_u64().await?;
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}

/// The clock of one function that waits.
struct Clock {
    function: &'static str,
    allowed: bool,
    count: AtomicU64,
    total_ns: AtomicU64,
}

impl Clock {
    const fn new(function: &'static str, allowed: bool) -> Self {
        Self { function, allowed, count: AtomicU64::new(0), total_ns: AtomicU64::new(0) }
    }

    fn time<T>(&self, call: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let value = call();
        self.total_ns.fetch_add(start.elapsed().as_nanos() as u64, Ordering::Relaxed);
        self.count.fetch_add(1, Ordering::Relaxed);
        value
    }
}

macro_rules! clocks {
    ($($clock:ident: $function:ident, allowed: $allowed:literal;)+) => {
        $(
            static $clock: Clock =
                Clock::new(concat!(module_path!(), "::", stringify!($function)), $allowed);
        )+

        static CLOCKS: &[&Clock] = &[$(&$clock),+];
    };
}

clocks! {
    RENDER_INVOICE: render_invoice, allowed: false;
    UPDATE_INVENTORY: update_inventory, allowed: false;
    LOAD_CUSTOMER: load_customer, allowed: false;
    CALL_PRICING_BLOCKING: call_pricing_blocking, allowed: false;
    ARCHIVE_ORDER: archive_order, allowed: true;
}

fn sums() -> Sums {
    let sum = |clock: &Clock| Sum {
        count: clock.count.load(Ordering::Relaxed),
        total_ns: clock.total_ns.load(Ordering::Relaxed),
        allowed: clock.allowed,
    };
    CLOCKS.iter().map(|clock| (clock.function.to_owned(), sum(clock))).collect()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed test may panic")]

    use super::*;

    /// One order of each kind, over the wire: each function waits at least as long as it says.
    #[test]
    fn every_kind_of_order_blocks_in_its_function() {
        let shop = Shop::open().unwrap();
        let mut connection = TcpStream::connect(shop.address).unwrap();
        let kinds = [
            ("render_invoice", LAYOUT, false),
            ("update_inventory", STOCK_TAKING, false),
            ("load_customer", QUERY, false),
            ("call_pricing_blocking", PRICING, false),
            ("archive_order", ARCHIVING, true),
        ];
        for (order, (function, at_least, allowed)) in (0_u64..).zip(kinds) {
            connection.write_all(&order.to_be_bytes()).unwrap();
            connection.read_exact(&mut [0; 8]).unwrap();
            let sum = sums()[&format!("stallscope::demo::service::{function}")];
            assert_eq!((sum.count, sum.allowed), (1, allowed), "{function}");
            assert!(u128::from(sum.total_ns) >= at_least.as_nanos(), "{function}");
        }
        shop.close();
    }
}
