//! HTTP/1.1 as far as the page needs it: one request a connection, everything bounded. The head is read by `httparse`.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// Bytes of a request's head.
const HEAD: usize = 16 << 10;
/// Bytes of a request's body.
const BODY: usize = 64 << 10;
/// Header lines of a request.
const LINES: usize = 64;
/// How long a whole request may take to come in, and a part of an answer to go out.
const PATIENCE: Duration = Duration::from_secs(15);

/// What a browser asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// `GET`, `HEAD` or `POST`; others are answered before.
    pub method: String,
    /// The path as it was sent, not decoded: it is compared, and never names a file.
    pub path: String,
    /// What stands behind the question mark.
    pub query: String,
    /// Header lines; names in lower case.
    pub headers: Vec<(String, String)>,
    /// What was posted.
    pub body: Vec<u8>,
}

impl Request {
    /// The value of a header line. `None` also where there are several: nobody knows which one counts.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut found = self.headers.iter().filter(|(known, _)| known == name);
        let value = found.next()?.1.as_str();
        found.next().is_none().then_some(value)
    }

    /// Whether there is such a header line.
    pub fn has(&self, name: &str) -> bool {
        self.headers.iter().any(|(known, _)| known == name)
    }

    /// A whole number among the parameters behind the question mark.
    pub fn number(&self, name: &str) -> Option<usize> {
        let pair = self.query.split('&').find_map(|pair| pair.split_once('=').filter(|(known, _)| *known == name))?;
        pair.1.parse().ok()
    }

    /// Reads one.
    ///
    /// # Errors
    /// What is to be answered to something that is none; `None` where nobody asked anything.
    pub fn read(stream: &mut TcpStream) -> Result<Self, Option<Response>> {
        let until = Instant::now() + PATIENCE;
        let mut bytes = Vec::new();
        let (mut request, length) = loop {
            let found = Self::head(&bytes)?;
            if found.as_ref().map_or(bytes.len(), |(_, head)| *head) > HEAD {
                return Err(Some(Response::text(431, "the head of the request is too long")));
            }
            if let Some((mut request, head)) = found {
                request.body = bytes.split_off(head);
                let length = request.length()?;
                break (request, length);
            }
            more(stream, &mut bytes, until)?;
        };
        while request.body.len() < length {
            more(stream, &mut request.body, until)?;
        }
        request.body.truncate(length);
        Ok(request)
    }

    /// The head, with its length, once it is whole.
    fn head(bytes: &[u8]) -> Result<Option<(Self, usize)>, Option<Response>> {
        let mut lines = [httparse::EMPTY_HEADER; LINES];
        let mut parsed = httparse::Request::new(&mut lines);
        let wrong = |what: &str| Some(Response::text(400, what));
        let head = match parsed.parse(bytes) {
            Ok(httparse::Status::Complete(head)) => head,
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(_) => return Err(wrong("this is no HTTP request")),
        };
        let target = parsed.path.unwrap_or_default();
        let method = parsed.method.unwrap_or_default();
        if !matches!(method, "GET" | "HEAD" | "POST") {
            return Err(Some(Response::text(405, "GET, HEAD or POST")));
        }
        if !target.starts_with('/') {
            return Err(wrong("the target is no path"));
        }
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let headers = parsed.headers.iter().map(|line| {
            let value = std::str::from_utf8(line.value).map_err(|_| wrong("a header line is no text"))?;
            Ok((line.name.to_ascii_lowercase(), value.trim().to_owned()))
        });
        let request = Self {
            method: method.to_owned(),
            path: path.to_owned(),
            query: query.to_owned(),
            headers: headers.collect::<Result<_, Option<Response>>>()?,
            body: Vec::new(),
        };
        Ok(Some((request, head)))
    }

    /// How long the body is.
    fn length(&self) -> Result<usize, Option<Response>> {
        if self.has("transfer-encoding") {
            return Err(Some(Response::text(411, "the length of the body has to be said")));
        }
        if !self.has("content-length") {
            return Ok(0);
        }
        let length = self.header("content-length").and_then(|length| length.parse::<usize>().ok());
        match length {
            Some(length) if length <= BODY => Ok(length),
            Some(_) => Err(Some(Response::text(413, "the body is too long"))),
            None => Err(Some(Response::text(400, "the length of the body is no number"))),
        }
    }
}

/// Reads some more.
fn more(stream: &mut TcpStream, bytes: &mut Vec<u8>, until: Instant) -> Result<(), Option<Response>> {
    let left = until.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(Some(Response::text(408, "the request took too long")));
    }
    let mut part = [0; 4096];
    let read = stream.set_read_timeout(Some(left)).and_then(|()| stream.read(&mut part));
    match read {
        Ok(0) => Err(None),
        Ok(read) => {
            bytes.extend(&part[..read]);
            Ok(())
        }
        Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
            Err(Some(Response::text(408, "the request took too long")))
        }
        Err(_) => Err(None),
    }
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// The status.
    pub status: u16,
    /// Header lines besides those that every answer has.
    pub headers: Vec<(&'static str, String)>,
    /// The content.
    pub body: Vec<u8>,
}

impl Response {
    /// Content of a type.
    pub fn of(status: u16, kind: &str, body: impl Into<Vec<u8>>) -> Self {
        Self { status, headers: vec![("Content-Type", kind.to_owned())], body: body.into() }
    }

    /// A line of text.
    pub fn text(status: u16, text: &str) -> Self {
        Self::of(status, "text/plain; charset=utf-8", format!("{text}\n"))
    }

    /// With a header line; one of the same name gives way to it.
    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.retain(|(known, _)| *known != name);
        self.headers.push((name, value.into()));
        self
    }

    /// Writes it, and says that the connection ends.
    pub fn write(&self, stream: &mut TcpStream, with_body: bool) -> io::Result<()> {
        stream.set_write_timeout(Some(PATIENCE))?;
        let mut head = format!("HTTP/1.1 {} {}\r\n", self.status, reason(self.status));
        for (name, value) in &self.headers {
            // Values are our own; a line break in one would be a second header line.
            let value: String = value.chars().filter(|char| !char.is_control()).collect();
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str(&format!("Content-Length: {}\r\nConnection: close\r\n\r\n", self.body.len()));
        stream.write_all(head.as_bytes())?;
        if with_body {
            stream.write_all(&self.body)?;
        }
        stream.flush()
    }
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        202 => "Accepted",
        204 => "No Content",
        304 => "Not Modified",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        409 => "Conflict",
        411 => "Length Required",
        413 => "Content Too Large",
        415 => "Unsupported Media Type",
        421 => "Misdirected Request",
        431 => "Request Header Fields Too Large",
        503 => "Service Unavailable",
        _ => "Internal Server Error",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(text: &str) -> Result<Option<(Request, usize)>, Option<Response>> {
        Request::head(text.as_bytes())
    }

    #[test]
    fn heads_are_read_and_bounded() {
        let (request, length) = head("GET /a?b=1&c=x HTTP/1.1\r\nHost: h\r\nX: 1\r\nx: 2\r\n\r\n").unwrap().unwrap();
        assert_eq!((request.path.as_str(), request.number("b"), request.number("c")), ("/a", Some(1), None));
        assert_eq!((request.header("host"), request.header("x"), length), (Some("h"), None, 48));
        assert!(head("GET / HTTP/1.1\r\nHost").unwrap().is_none());
        let status = |text: &str| head(text).unwrap_err().unwrap().status;
        assert_eq!(status("PUT / HTTP/1.1\r\n\r\n"), 405);
        assert_eq!(status("GET http://other/ HTTP/1.1\r\n\r\n"), 400);
        assert_eq!(status("\0\0\0"), 400);
        let (request, _) = head("POST / HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n").unwrap().unwrap();
        assert_eq!(request.length().unwrap_err().unwrap().status, 413);
        let (request, _) = head("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n").unwrap().unwrap();
        assert_eq!(request.length().unwrap_err().unwrap().status, 411);
    }
}
