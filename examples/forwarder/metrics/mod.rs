//! Counters over HTTP, for Prometheus and for whoever asks whether the forwarder is well.
//!
//! `/metrics` has all counters, `/healthz` says whether the workers work. One thread serves everybody; it only ever reads
//! what the workers count anyhow.

mod client;
mod exposition;
mod families;
mod reading;
mod request;
mod server;

use std::fmt::Write;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use mio::net::TcpListener;
use mio::{Poll, Waker};
use overplane::Control;
use tracing::{error, info};

use crate::failure::Failure;
use client::Answer;
use exposition::{Exposition, Format};
use reading::Reader;
use request::{Parsed, Refusal, Request};
use server::Server;

/// Scrapes of one format within this time get the same numbers: however many ask, and however often, reading them costs
/// no more.
const FRESH: Duration = Duration::from_millis(250);

/// An address that is listened at; clients wait until they are served.
#[derive(Debug)]
pub struct Endpoint {
    listener: TcpListener,
}

impl Endpoint {
    /// Listens at an address, in the network namespace of the calling thread.
    pub fn bind(address: SocketAddr) -> Result<Self, Failure> {
        let listener = TcpListener::bind(address).map_err(|error| {
            let advice = match error.kind() {
                io::ErrorKind::AddrInUse => {
                    "; another process listens there: choose another port, or address \
                     (--metrics, or address under [metrics])"
                }
                io::ErrorKind::AddrNotAvailable => {
                    "; it is on none of this host's interfaces (--metrics, or address under [metrics])"
                }
                _ => "",
            };
            Failure::run(format_args!("listening for metrics on {address}: {error}{advice}"))
        })?;
        Ok(Self { listener })
    }

    /// Serves the counters of a dataplane until what is returned is dropped.
    pub fn serve(self, control: Control, fdb_capacity: usize) -> Result<Serving, Failure> {
        let address = self.listener.local_addr()?;
        let poll = Poll::new()?;
        let waker = Waker::new(poll.registry(), server::END)?;
        let server = Server::new(poll, self.listener)?;
        let mut site = Site::new(Reader::new(control, fdb_capacity));
        let serve = move || {
            if let Err(why) = server.run(|parsed| site.answer(&parsed)) {
                error!("metrics are not served any more: {why}");
            }
        };
        let thread = thread::Builder::new().name("metrics".into()).spawn(serve)?;
        info!("metrics at http://{address}/metrics");
        Ok(Serving { waker, thread: Some(thread) })
    }
}

/// A thread that serves clients, until this is dropped.
#[derive(Debug)]
pub struct Serving {
    waker: Waker,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Serving {
    fn drop(&mut self) {
        // Without a wake-up the thread would be waited for in vain.
        if self.waker.wake().is_ok()
            && let Some(thread) = self.thread.take()
        {
            let _ = thread.join();
        }
    }
}

/// What there is to be seen.
struct Site {
    reader: Reader,
    /// What was read last, by format.
    fresh: [Option<(Instant, Arc<str>)>; 2],
}

const TEXT: &str = "text/plain; charset=utf-8";
const HTML: &str = "text/html; charset=utf-8";

const INDEX: &str = "<!DOCTYPE html>\n<title>overplane forwarder</title>\n<h1>overplane forwarder</h1>\n<ul>\n\
    <li><a href=\"/metrics\">/metrics</a>: all counters, for Prometheus\n\
    <li><a href=\"/healthz\">/healthz</a>: whether the workers work\n</ul>\n";

impl Site {
    fn new(reader: Reader) -> Self {
        Self { reader, fresh: [None, None] }
    }

    fn answer(&mut self, parsed: &Parsed) -> Answer {
        let request = match parsed {
            Parsed::Whole(request) => request,
            Parsed::Refused(Refusal::TooLarge) => {
                return answer(
                    "431 Request Header Fields Too Large",
                    TEXT,
                    "the request is too large\n",
                );
            }
            Parsed::Refused(Refusal::Malformed) | Parsed::Part => {
                return answer("400 Bad Request", TEXT, "this is no request of HTTP/1\n");
            }
        };
        let mut answer = self.page(request);
        if request.method == "HEAD" {
            answer.body = Arc::from("");
        }
        answer
    }

    fn page(&mut self, request: &Request) -> Answer {
        let known = ["/", "/metrics", "/healthz"].contains(&request.path.as_str());
        match request.path.as_str() {
            _ if known && !["GET", "HEAD"].contains(&request.method.as_str()) => {
                let mut answer = answer("405 Method Not Allowed", TEXT, "allowed: GET, HEAD\n");
                answer.head.insert_str(answer.head.len() - 2, "Allow: GET, HEAD\r\n");
                answer
            }
            "/" => answer("200 OK", HTML, INDEX),
            "/metrics" => {
                answer("200 OK", request.format.content_type(), self.metrics(request.format))
            }
            "/healthz" => match self.reader.trouble() {
                trouble if trouble.is_empty() => answer("200 OK", TEXT, "ok\n"),
                trouble => answer("503 Service Unavailable", TEXT, trouble.join("\n") + "\n"),
            },
            _ => answer("404 Not Found", TEXT, "there are /metrics and /healthz\n"),
        }
    }

    fn metrics(&mut self, format: Format) -> Arc<str> {
        let now = Instant::now();
        match &self.fresh[format as usize] {
            Some((at, text)) if now.duration_since(*at) < FRESH => text.clone(),
            _ => {
                let reading = self.reader.read();
                let mut exposition = Exposition::new(format);
                families::all().for_each(|family| family.write(&reading, &mut exposition));
                let text: Arc<str> = exposition.finish().into();
                self.fresh[format as usize] = Some((now, text.clone()));
                text
            }
        }
    }
}

/// An answer that nobody is to keep, and behind which the connection is closed.
fn answer(status: &str, content_type: &str, body: impl Into<Arc<str>>) -> Answer {
    let body = body.into();
    let mut head = String::new();
    // Writing to a string does not fail.
    let _ = write!(
        head,
        "HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\nVary: Accept\r\n\
         Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\nConnection: close\r\n\r\n",
        body.len()
    );
    Answer { head, body }
}

#[cfg(test)]
mod tests;
