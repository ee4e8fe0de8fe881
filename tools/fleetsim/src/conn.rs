//! One accepted connection: reading, writing, waiting and breaking it.
//!
//! Knows nothing of hosts or HTTP.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::SockRef;
use tokio::net::TcpStream;

/// A connection that several tasks may look at.
#[derive(Debug)]
pub struct Conn {
    stream: TcpStream,
    busy: AtomicBool,
}

impl Conn {
    /// Wraps an accepted socket.
    pub fn new(stream: TcpStream) -> Self {
        // Each answer is one write: waiting to fill a segment only costs time.
        let _ = stream.set_nodelay(true);
        Self { stream, busy: AtomicBool::new(false) }
    }

    /// Whether a request is being served on it.
    pub fn busy(&self) -> bool {
        self.busy.load(Ordering::Acquire)
    }

    /// Sets that, and tells what it was.
    pub fn set_busy(&self, busy: bool) -> bool {
        self.busy.swap(busy, Ordering::AcqRel)
    }

    /// Appends what has arrived to `into`; 0 at the end.
    pub async fn read(&self, into: &mut Vec<u8>) -> io::Result<usize> {
        let mut scratch = [0; 2048];
        loop {
            self.stream.readable().await?;
            match self.stream.try_read(&mut scratch) {
                Ok(count) => {
                    into.extend_from_slice(&scratch[..count]);
                    return Ok(count);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Writes all of it.
    pub async fn write(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.stream.try_write(bytes) {
                Ok(count) => bytes = &bytes[count..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.stream.writable().await?;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Waits until the peer closes. What it sends meanwhile is thrown away:
    /// unread bytes would hide the end of the connection behind them.
    pub async fn closed(&self) {
        let mut scratch = Vec::new();
        loop {
            scratch.clear();
            match self.read(&mut scratch).await {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
        }
    }

    /// Makes the close to come an abortive one (RST).
    pub fn reset(&self) {
        let _ = SockRef::from(&self.stream).set_linger(Some(std::time::Duration::ZERO));
    }

    /// Whether the peer has closed its side. Asks the kernel, because the task
    /// of this connection may not have noticed yet.
    pub fn gone(&self) -> bool {
        let mut fds = [PollFd::new(&self.stream, PollFlags::RDHUP)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        let gone = PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR;
        poll(&mut fds, Some(&now)).is_ok() && fds[0].revents().intersects(gone)
    }
}
