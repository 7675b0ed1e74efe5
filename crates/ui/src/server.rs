//! The server: it listens, and gives each connection a thread.

use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use palinode::{Error, ErrorKind, Hint};

use crate::guard::Guard;
use crate::http::{Request, Response};
use crate::routes::Routes;

/// Connections at a time; a page needs a few.
const MOST: usize = 32;

/// What the page is about, and where it is.
pub struct Options {
    /// The store's folder.
    pub store: PathBuf,
    /// The address to listen at.
    pub ip: IpAddr,
    /// Ports to try, one after the other; 0 is any that is free.
    pub ports: Vec<u16>,
    /// Names that lead here, besides addresses and `localhost`.
    pub names: Vec<String>,
    /// How a hint is put into words.
    pub words: fn(&Hint) -> String,
}

/// A server that listens.
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    guard: Guard,
    routes: Routes,
    open: AtomicUsize,
}

impl Server {
    /// Begins to listen.
    ///
    /// # Errors
    /// Of kind usage, when none of the ports is free.
    pub fn bind(options: Options) -> Result<Arc<Self>, Error> {
        let addresses: Vec<SocketAddr> = options.ports.iter().map(|&port| (options.ip, port).into()).collect();
        let usage = |error: std::io::Error| {
            let wanted = addresses.first().map(ToString::to_string).unwrap_or_default();
            Error::new(ErrorKind::Usage, format!("cannot listen at {wanted}")).source(error)
        };
        let listener = TcpListener::bind(addresses.as_slice()).map_err(usage)?;
        let address = listener.local_addr().map_err(usage)?;
        let guard = Guard::new(address, &options.names).map_err(no_secret)?;
        let routes = Routes::new(options.store, options.words);
        Ok(Arc::new(Self { listener, address, guard, routes, open: AtomicUsize::new(0) }))
    }

    /// A link that opens the page for one browser, once; the one before opens it no more.
    ///
    /// # Errors
    /// When the system gives no random numbers.
    pub fn new_link(&self) -> Result<String, Error> {
        let mut address = self.address;
        if address.ip().is_unspecified() {
            // Not a place to go to.
            address.set_ip(if address.is_ipv4() {
                [127, 0, 0, 1].into()
            } else {
                std::net::Ipv6Addr::LOCALHOST.into()
            });
        }
        Ok(format!("http://{address}/start#{}", self.guard.new_code().map_err(no_secret)?))
    }

    /// Whether others than this machine reach it.
    pub fn is_open(&self) -> bool {
        !self.address.ip().is_loopback()
    }

    /// Answers in threads of its own, as long as the process lives.
    pub fn start(self: &Arc<Self>) -> Result<(), Error> {
        let server = Arc::clone(self);
        let accept = move || {
            for stream in server.listener.incoming().flatten() {
                server.take(stream);
            }
        };
        let started = thread::Builder::new().name("page".to_owned()).spawn(accept);
        started.map(drop).map_err(|error| Error::new(ErrorKind::Limit, "no thread for the page").source(error))
    }

    /// Ends what is asked of a model, and waits for it.
    pub fn stop(&self) {
        self.routes.stop();
    }

    fn take(self: &Arc<Self>, mut stream: TcpStream) {
        if self.open.fetch_add(1, Ordering::Relaxed) >= MOST {
            let _ = Response::text(503, "too many connections at once").write(&mut stream, true);
            self.open.fetch_sub(1, Ordering::Relaxed);
            return;
        }
        let server = Arc::clone(self);
        let answer = move || {
            server.answer(&mut stream);
            server.open.fetch_sub(1, Ordering::Relaxed);
        };
        if thread::Builder::new().name("request".to_owned()).spawn(answer).is_err() {
            self.open.fetch_sub(1, Ordering::Relaxed);
        }
    }

    fn answer(&self, stream: &mut TcpStream) {
        let (response, body) = match Request::read(stream) {
            Ok(request) => {
                let answered = catch_unwind(AssertUnwindSafe(|| self.routes.answer(&self.guard, &request)));
                let response = answered.unwrap_or_else(|_| Response::text(500, "a mistake in the program"));
                (response, request.method != "HEAD")
            }
            Err(Some(refused)) => (refused, true),
            Err(None) => return,
        };
        // Whoever asked may be gone.
        let _ = crate::routes::guarded(response).write(stream, body);
    }
}

fn no_secret(error: getrandom::Error) -> Error {
    Error::internal(format!("the system gives no random numbers: {error}"))
}
