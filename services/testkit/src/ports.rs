//! Ports of 127.0.0.1 for services that are started later, and again.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::sync::{Mutex, PoisonError};

use holdfast_runtime::Runtime;

/// Ports are taken from below the range that the kernel gives to outgoing
/// connections and to whoever asks for any port.
const FIRST_PORT: u16 = 20_000;
const PORT_COUNT: u64 = 12_000;

/// What marks the ports that this process has taken. Never given back while it
/// lives: a service may be down for a while, and must find its port free.
static TAKEN: Mutex<Vec<UnixListener>> = Mutex::new(Vec::new());

/// A port that nobody uses, and that no other test process is given as long as
/// this one lives.
///
/// # Panics
/// When there is none.
#[must_use]
pub fn free() -> u16 {
    for _ in 0..1_000 {
        let offset = Runtime::real().random_u64() % PORT_COUNT;
        let port = FIRST_PORT + u16::try_from(offset).expect("below the port count");
        // In this order: once the mark is ours, nobody begins to use the port.
        if take(port) && !is_in_use(port) {
            return port;
        }
    }
    panic!("no free port from {FIRST_PORT} up");
}

/// Whether the mark of this port was free. It is a socket without a file,
/// which ends with the process, however that ends, and belongs to the same
/// network namespace as the port.
fn take(port: u16) -> bool {
    let name = SocketAddr::from_abstract_name(format!("holdfast-test-port-{port}"));
    let mark = UnixListener::bind_addr(&name.expect("a short name"));
    let mut taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
    mark.map(|mark| taken.push(mark)).is_ok()
}

/// Looks without touching: to bind the port, if only for a moment, could take
/// it from a service that binds it at that moment.
fn is_in_use(port: u16) -> bool {
    ["/proc/net/tcp", "/proc/net/tcp6"].iter().any(|table| {
        // Without IPv6 there is no table of it.
        let table = std::fs::read_to_string(table).unwrap_or_default();
        table.lines().skip(1).any(|line| local_port(line) == Some(port))
    })
}

/// The second column of a row: `<address>:<port>`, in hexadecimal digits.
fn local_port(row: &str) -> Option<u16> {
    let (_, port) = row.split_whitespace().nth(1)?.rsplit_once(':')?;
    u16::from_str_radix(port, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;
    use std::net::TcpListener;

    #[test]
    fn no_port_is_given_twice() {
        let ports: Vec<u16> = (0..20).map(|_| free()).collect();
        assert_eq!(ports.iter().collect::<HashSet<_>>().len(), ports.len());
        assert!(ports.iter().all(|port| !take(*port)));
    }

    #[test]
    fn a_port_in_use_is_seen_without_touching_it() {
        let listener = TcpListener::bind(("127.0.0.1", free())).expect("it is free");
        let port = listener.local_addr().expect("it is bound").port();
        assert!(is_in_use(port));
        listener.set_nonblocking(true).expect("a socket");
        let touched = listener.accept().map_err(|error| error.kind());
        assert_eq!(touched.err(), Some(std::io::ErrorKind::WouldBlock));
        drop(listener);
        assert!(!is_in_use(port));
    }
}
