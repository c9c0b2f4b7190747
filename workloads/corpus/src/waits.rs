//! Every way in which a thread is made to wait, with what the kernel is asked for and what the
//! stack means beyond that.

use std::{
    fs::File,
    future::Future,
    io::{Read, Write},
    net::{TcpListener, TcpStream, ToSocketAddrs, UdpSocket},
    os::fd::AsRawFd,
    path::PathBuf,
    pin::Pin,
    process::Command,
    ptr,
    sync::{
        atomic::{AtomicBool, Ordering},
        mpsc, Arc, Condvar, Mutex, RwLock,
    },
    task::{Context, Poll},
    thread,
    time::Duration,
};

use crate::truth::Truth;

/// How long each wait lasts.
pub const LENGTH: Duration = Duration::from_millis(20);

/// A wait.
pub struct Wait {
    pub reason: &'static str,
    pub label: Option<&'static str>,
    pub wait: fn(),
}

const fn wait(reason: &'static str, label: Option<&'static str>, wait: fn()) -> Wait {
    Wait { reason, label, wait }
}

pub const SLEEP: Wait = wait("sleep", None, || thread::sleep(LENGTH));

/// Every wait.
pub const ALL: &[Wait] = &[
    SLEEP,
    wait("futex", Some("mutex"), std_mutex),
    wait("futex", Some("rwlock"), std_rwlock),
    wait("futex", Some("mutex"), parking_lot_mutex),
    wait("futex", Some("condvar"), std_condvar),
    wait("futex", Some("condvar"), parking_lot_condvar),
    wait("futex", Some("channel"), channel),
    wait("futex", Some("join"), join),
    wait("futex", Some("sync-over-async"), sync_over_async),
    wait("socket", None, socket),
    wait("pipe", None, fifo_open),
    wait("pipe", None, fifo_read),
    wait("file", None, file_lock),
    wait("poll", Some("dns"), dns),
    wait("poll", None, poll),
    wait("process", None, process),
    wait("page-fault", None, page_fault),
];

/// Does `work` after a while, on a thread of its own.
pub fn later(work: impl FnOnce() + Send + 'static) -> thread::JoinHandle<()> {
    let body = move || {
        Truth::plain("sleep", None).declare();
        thread::sleep(LENGTH);
        work();
    };
    thread::Builder::new().name("plain".to_owned()).spawn(body).unwrap()
}

/// The same for work that ends what was begun before: returns when that has begun.
fn hold<T>(begin: impl FnOnce() -> T + Send + 'static, end: impl FnOnce(T) + Send + 'static) {
    let begun = Arc::new(AtomicBool::new(false));
    let told = begun.clone();
    let body = move || {
        Truth::plain("sleep", None).declare();
        let held = begin();
        told.store(true, Ordering::Release);
        thread::sleep(LENGTH);
        end(held);
    };
    thread::Builder::new().name("plain".to_owned()).spawn(body).unwrap();
    while !begun.load(Ordering::Acquire) {
        thread::yield_now();
    }
}

fn std_mutex() {
    let lock = Box::leak(Box::new(Mutex::new(())));
    let lock: &'static Mutex<()> = lock;
    hold(|| lock.lock().unwrap(), drop);
    drop(lock.lock().unwrap());
}

fn std_rwlock() {
    let lock: &'static RwLock<()> = Box::leak(Box::new(RwLock::new(())));
    hold(|| lock.write().unwrap(), drop);
    drop(lock.read().unwrap());
}

fn parking_lot_mutex() {
    static LOCK: parking_lot::Mutex<()> = parking_lot::Mutex::new(());
    // A guard that is dropped on another thread would not be `Send`.
    hold(|| std::mem::forget(LOCK.lock()), |()| unlock(&LOCK));
    drop(LOCK.lock());
}

fn unlock(lock: &parking_lot::Mutex<()>) {
    // SAFETY: its guard was forgotten by the same thread.
    unsafe { lock.force_unlock() }
}

fn std_condvar() {
    let pair = Arc::new((Mutex::new(false), Condvar::new()));
    let other = pair.clone();
    later(move || {
        *other.0.lock().unwrap() = true;
        other.1.notify_one();
    });
    let mut done = pair.0.lock().unwrap();
    while !*done {
        done = pair.1.wait(done).unwrap();
    }
}

fn parking_lot_condvar() {
    let pair = Arc::new((parking_lot::Mutex::new(false), parking_lot::Condvar::new()));
    let other = pair.clone();
    later(move || {
        *other.0.lock() = true;
        other.1.notify_one();
    });
    let mut done = pair.0.lock();
    while !*done {
        pair.1.wait(&mut done);
    }
}

fn channel() {
    let (sender, receiver) = mpsc::channel();
    later(move || sender.send(()).unwrap());
    receiver.recv().unwrap();
}

fn join() {
    later(|| ()).join().unwrap();
}

fn sync_over_async() {
    futures_executor::block_on(Later::new());
}

/// A future that is ready after a while.
pub struct Later {
    done: Arc<AtomicBool>,
    started: bool,
}

impl Later {
    pub fn new() -> Self {
        Self { done: Arc::default(), started: false }
    }
}

impl Future for Later {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.done.load(Ordering::Acquire) {
            return Poll::Ready(());
        }
        if !std::mem::replace(&mut self.started, true) {
            let (done, waker) = (self.done.clone(), context.waker().clone());
            later(move || {
                done.store(true, Ordering::Release);
                waker.wake();
            });
        }
        Poll::Pending
    }
}

fn socket() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut one = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (mut other, _) = listener.accept().unwrap();
    later(move || other.write_all(b"x").unwrap());
    one.read_exact(&mut [0]).unwrap();
}

fn fifo() -> PathBuf {
    static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let path = std::env::temp_dir().join(format!("corpus-{}-{number}", std::process::id()));
    let name = std::ffi::CString::new(path.to_str().unwrap()).unwrap();
    // SAFETY: the name ends with a zero byte.
    assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
    path
}

fn fifo_open() {
    let path = fifo();
    let other = path.clone();
    later(move || drop(File::create(other).unwrap()));
    drop(File::open(&path).unwrap());
    std::fs::remove_file(path).unwrap();
}

fn fifo_read() {
    let path = fifo();
    let mut fifo = File::options().read(true).write(true).open(&path).unwrap();
    let mut other = fifo.try_clone().unwrap();
    later(move || other.write_all(b"x").unwrap());
    fifo.read_exact(&mut [0]).unwrap();
    std::fs::remove_file(path).unwrap();
}

fn file_lock() {
    let path = std::env::current_exe().unwrap();
    let lock = |file: &File, how| {
        // SAFETY: takes a descriptor that is open.
        assert_eq!(unsafe { libc::flock(file.as_raw_fd(), how) }, 0);
    };
    let file = File::open(&path).unwrap();
    hold(
        move || {
            let file = File::open(path).unwrap();
            lock(&file, libc::LOCK_EX);
            file
        },
        drop,
    );
    lock(&file, libc::LOCK_EX);
}

/// The name server that `resolv.conf` must name.
const NAME_SERVER: &str = "127.53.0.1:53";

/// Answers late, and then that there is no such name.
pub fn start_name_server() {
    let socket = UdpSocket::bind(NAME_SERVER).unwrap();
    let serve = move || {
        let mut packet = [0; 512];
        loop {
            Truth::plain("socket", None).declare();
            let (length, client) = socket.recv_from(&mut packet).unwrap();
            Truth::plain("sleep", None).declare();
            thread::sleep(LENGTH);
            packet[2] |= 0x80;
            packet[3] = 0x83;
            socket.send_to(&packet[..length], client).unwrap();
        }
    };
    thread::Builder::new().name("plain".to_owned()).spawn(serve).unwrap();
}

fn dns() {
    assert!(("nowhere.example.", 80).to_socket_addrs().is_err());
}

fn poll() {
    let path = fifo();
    let fifo = File::options().read(true).write(true).open(&path).unwrap();
    let mut asked = libc::pollfd { fd: fifo.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one element, of this frame.
    unsafe { libc::poll(&raw mut asked, 1, LENGTH.as_millis() as i32) };
    std::fs::remove_file(path).unwrap();
}

fn process() {
    assert!(Command::new("sleep").arg("0.02").status().unwrap().success());
}

/// Touches a page that another thread brings late.
fn page_fault() {
    const PAGE: usize = 4096;
    // SAFETY: the mapping is new, and the structures are those of linux/userfaultfd.h.
    unsafe {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        let how = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        let page = libc::mmap(ptr::null_mut(), PAGE, access, how, -1, 0);
        assert_ne!(page, libc::MAP_FAILED);
        let fd = libc::syscall(libc::SYS_userfaultfd, libc::O_CLOEXEC) as i32;
        assert!(fd >= 0, "userfaultfd: {}", std::io::Error::last_os_error());
        // UFFDIO_API with UFFD_API.
        assert_eq!(libc::ioctl(fd, 0xc018_aa3f, &mut [0xaa_u64, 0, 0]), 0);
        // UFFDIO_REGISTER with UFFDIO_REGISTER_MODE_MISSING.
        let range = [page as u64, PAGE as u64];
        assert_eq!(libc::ioctl(fd, 0xc020_aa00, &mut [range[0], range[1], 1, 0]), 0);
        later(move || {
            // UFFDIO_ZEROPAGE.
            assert_eq!(libc::ioctl(fd, 0xc020_aa04, &mut [range[0], range[1], 0, 0]), 0);
            libc::close(fd);
        });
        assert_eq!(page.cast::<u8>().read_volatile(), 0);
        libc::munmap(page, PAGE);
    }
}
