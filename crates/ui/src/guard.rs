//! Who may come in.
//!
//! The link that is shown holds a code behind `#`: browsers send that to nobody, so that it stands in no log on the way. The page gives it
//! back once, in the body of a request, and gets a key in a cookie that scripts cannot read; from then on the code opens nothing, whoever
//! finds it in a history. Requests have to come from the page itself: `Host` must be a name of this server, so that no other name can be
//! made to point here, and `Origin` and `Sec-Fetch-Site`, which browsers add by themselves, must not say another place.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, PoisonError};

use crate::http::Request;

/// The keys, and the names that the server goes by.
pub struct Guard {
    address: SocketAddr,
    names: Vec<String>,
    key: String,
    code: Mutex<Option<String>>,
}

/// What stands against a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It was sent to another name.
    Host,
    /// It was sent by another site.
    Origin,
}

impl Guard {
    /// For a server at this address, which other names may point to.
    ///
    /// # Errors
    /// When the system gives no random numbers.
    pub fn new(address: SocketAddr, names: &[String]) -> Result<Self, getrandom::Error> {
        let names = names.iter().map(|name| name.to_ascii_lowercase()).collect();
        Ok(Self { address, names, key: secret()?, code: Mutex::default() })
    }

    /// A code that opens once; the one before opens no more.
    ///
    /// # Errors
    /// When the system gives no random numbers.
    pub fn new_code(&self) -> Result<String, getrandom::Error> {
        let code = secret()?;
        *self.code.lock().unwrap_or_else(PoisonError::into_inner) = Some(code.clone());
        Ok(code)
    }

    /// The cookie for who knows the code.
    pub fn open(&self, code: &str) -> Option<String> {
        let mut known = self.code.lock().unwrap_or_else(PoisonError::into_inner);
        if !known.as_ref().is_some_and(|known| same(known, code)) {
            return None;
        }
        *known = None;
        Some(format!("{}={}; Path=/; HttpOnly; SameSite=Strict", self.cookie(), self.key))
    }

    /// Cookies do not know ports: two servers of one machine must not take each other's.
    fn cookie(&self) -> String {
        format!("palinode-{}", self.address.port())
    }

    /// Whether the request has the key.
    pub fn knows(&self, request: &Request) -> bool {
        let cookies = request.headers.iter().filter(|(name, _)| name == "cookie");
        let mut pairs = cookies.flat_map(|(_, value)| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
        let name = self.cookie();
        pairs.any(|(known, value)| known == name && same(&self.key, value))
    }

    /// Whether the request was sent to this server, by its own page or by a person.
    ///
    /// # Errors
    /// What stands against it.
    pub fn check(&self, request: &Request) -> Result<(), Refusal> {
        let host = request.header("host").ok_or(Refusal::Host)?;
        if !self.is_name(name_of(host)) {
            return Err(Refusal::Host);
        }
        if request.has("origin") {
            let origin = request.header("origin").ok_or(Refusal::Origin)?;
            let from = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
            if !from.is_some_and(|from| from.eq_ignore_ascii_case(host)) {
                return Err(Refusal::Origin);
            }
        }
        match request.header("sec-fetch-site") {
            None if request.has("sec-fetch-site") => Err(Refusal::Origin),
            None | Some("same-origin" | "none") => Ok(()),
            Some(_) => Err(Refusal::Origin),
        }
    }

    fn is_name(&self, name: &str) -> bool {
        let name = name.to_ascii_lowercase();
        let ip: Option<IpAddr> = name.trim_start_matches('[').trim_end_matches(']').parse().ok();
        match ip {
            // Nobody can make an address point elsewhere.
            Some(ip) if self.address.ip().is_loopback() => ip.is_loopback(),
            Some(_) => true,
            // A tunnel ends here under this name, whatever its port.
            None => name == "localhost" || self.names.contains(&name),
        }
    }
}

/// A host without its port.
fn name_of(host: &str) -> &str {
    if host.starts_with('[') {
        return host.find(']').map_or(host, |end| &host[..=end]);
    }
    host.rsplit_once(':').map_or(host, |(name, _)| name)
}

/// 32 random bytes in letters and digits.
fn secret() -> Result<String, getrandom::Error> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Whether two texts are the same, in a time that does not tell where they differ.
fn same(known: &str, given: &str) -> bool {
    let differ = known.bytes().zip(given.bytes()).fold(0, |differ, (a, b)| differ | (a ^ b));
    known.len() == given.len() && std::hint::black_box(differ) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(lines: &[(&str, &str)]) -> Request {
        let headers = lines.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Request { headers, ..Request::default() }
    }

    #[test]
    fn a_code_opens_once() {
        let guard = Guard::new("127.0.0.1:80".parse().unwrap(), &[]).unwrap();
        let first = guard.new_code().unwrap();
        let code = guard.new_code().unwrap();
        assert!(guard.open("").is_none() && guard.open(&first).is_none());
        let cookie = guard.open(&code).unwrap();
        assert!(guard.open(&code).is_none());
        let value = cookie.split(';').next().unwrap();
        assert!(guard.knows(&request(&[("cookie", &format!("a=b; {value}"))])));
        assert!(!guard.knows(&request(&[("cookie", &format!("{value}0"))])) && !guard.knows(&request(&[])));
    }

    #[test]
    fn names_and_origins() {
        let check = |address: &str, lines: &[(&str, &str)], expect: Result<(), Refusal>| {
            let guard = Guard::new(address.parse().unwrap(), &["Lab.example".to_owned()]).unwrap();
            assert_eq!(guard.check(&request(lines)), expect, "{lines:?}");
        };
        let here = "127.0.0.1:8000";
        for host in ["127.0.0.1:8000", "localhost:9", "LOCALHOST", "[::1]:8000", "lab.example:8000"] {
            check(here, &[("host", host)], Ok(()));
        }
        for host in
            ["evil.example", "evil.example:8000", "192.168.0.4:8000", "127.0.0.1.evil.example", "", "localhost.evil"]
        {
            check(here, &[("host", host)], Err(Refusal::Host));
        }
        check(here, &[], Err(Refusal::Host));
        check(here, &[("host", "localhost"), ("host", "localhost")], Err(Refusal::Host));
        check("0.0.0.0:80", &[("host", "192.168.0.4")], Ok(()));
        check("0.0.0.0:80", &[("host", "evil.example")], Err(Refusal::Host));
        let from = |origin: &str, expect| check(here, &[("host", "localhost:8000"), ("origin", origin)], expect);
        from("http://localhost:8000", Ok(()));
        for origin in ["http://localhost:9000", "null", "http://evil.example", "localhost:8000"] {
            from(origin, Err(Refusal::Origin));
        }
        for (site, expect) in [("same-origin", Ok(())), ("none", Ok(())), ("same-site", Err(Refusal::Origin))] {
            check(here, &[("host", "localhost"), ("sec-fetch-site", site)], expect);
        }
    }
}
