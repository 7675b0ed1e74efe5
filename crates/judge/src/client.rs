//! One question, one reply.

use std::io::Read as _;
use std::time::{Duration, SystemTime};

use serde_json::{Map, Value, json};
use ureq::http::Response;
use ureq::{Agent, Body};

use crate::Key;

/// A reply is a few KiB.
const LARGEST_REPLY: u64 = 1 << 20;
/// Letters of a server's own message that are repeated.
const SHOWN: usize = 300;
/// The first wait after a failure; each further one is twice as long.
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// The longest wait that is not the server's wish.
const LONGEST_WAIT: Duration = Duration::from_mins(1);
/// A server that wishes to be left alone for longer is asked another time.
const LONGEST_WISH: Duration = Duration::from_mins(10);

/// How much is put up with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// The longest time that one call may take.
    pub timeout: Duration,
    /// Further calls after one that failed because the server had no time, or was out of reach.
    pub retries: usize,
}

/// What sort of thing went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// The address, the key or the question is wrong: another call fails the same way.
    Refused,
    /// The server cannot be reached, or has no time: another call may go better.
    Busy,
    /// Whoever waits was told to stop.
    Stopped,
}

/// What went wrong, and what to do. No text of it holds a key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct JudgeError {
    /// What sort of thing it is.
    pub trouble: Trouble,
    /// A lowercase fragment.
    pub message: String,
    /// What to do.
    pub hint: Option<String>,
}

impl JudgeError {
    fn new(trouble: Trouble, message: String, hint: &str) -> Self {
        Self { trouble, message, hint: (!hint.is_empty()).then(|| hint.to_owned()) }
    }
}

/// Asks one model on one server.
pub struct Client {
    agent: Agent,
    address: String,
    server: String,
    body: Map<String, Value>,
    key: Option<Key>,
    retries: usize,
    timeout: Duration,
}

/// How one call ended that did not give a reply.
enum Failed {
    For(JudgeError),
    /// Another call may go better, after a wait that the server wishes.
    ForNow(JudgeError, Option<Duration>),
}

impl Client {
    /// Of a server's address, such as `https://api.openai.com/v1`; the route `/chat/completions` is added to it. `options` are further fields of
    /// every request, and replace `temperature` (0) and `max_tokens` (16); one that is null is left out.
    ///
    /// # Errors
    /// [`Trouble::Refused`] for an address that cannot be used: one that is none, or has a password or a query in it; and one on another machine
    /// to which a key would travel in the clear.
    pub fn new(
        url: &str,
        model: &str,
        options: &Map<String, Value>,
        key: Option<Key>,
        patience: Patience,
    ) -> Result<Self, JudgeError> {
        let server =
            server(url, key.is_some()).map_err(|(message, hint)| JudgeError::new(Trouble::Refused, message, hint))?;
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(patience.timeout))
            // A key goes to the server that was named, and to no other.
            .max_redirects(0)
            .user_agent(concat!("palinode/", env!("CARGO_PKG_VERSION")))
            .build();
        let mut body = Map::new();
        body.insert("model".into(), json!(model));
        body.insert("temperature".into(), json!(0));
        body.insert("max_tokens".into(), json!(16));
        body.extend(options.clone());
        body.retain(|_, value| !value.is_null());
        let address = format!("{}/chat/completions", url.trim().trim_end_matches('/'));
        Ok(Self {
            agent: config.into(),
            address,
            server,
            body,
            key,
            retries: patience.retries,
            timeout: patience.timeout,
        })
    }

    /// The reply to a question. `pause` waits, and fails where whoever asks is to stop.
    ///
    /// # Errors
    /// [`Trouble::Refused`], where another call would fail the same way; [`Trouble::Busy`] after all retries, and at once where the server wishes
    /// to be left alone for more than ten minutes; [`Trouble::Stopped`].
    pub fn ask(&self, question: &str, pause: &dyn Fn(Duration) -> bool) -> Result<String, JudgeError> {
        let mut body = self.body.clone();
        body.insert("messages".into(), json!([{ "role": "user", "content": question }]));
        let body = Value::Object(body).to_string();
        let mut failures = 0;
        loop {
            let (error, wish) = match self.call(&body) {
                Ok(reply) => return Ok(self.hidden(&reply)),
                Err(Failed::For(error)) => return Err(error),
                Err(Failed::ForNow(error, wish)) => (error, wish),
            };
            if failures == self.retries || wish.is_some_and(|wish| wish > LONGEST_WISH) {
                return Err(error);
            }
            let doubled = FIRST_WAIT.saturating_mul(1 << failures.min(10));
            failures += 1;
            if !pause(wish.unwrap_or(doubled.min(LONGEST_WAIT))) {
                return Err(JudgeError::new(Trouble::Stopped, "stopped".into(), ""));
            }
        }
    }

    fn call(&self, body: &str) -> Result<String, Failed> {
        let mut request = self.agent.post(&self.address).header("content-type", "application/json");
        if let Some(key) = &self.key {
            request = request.header("authorization", key.header());
        }
        let response = request.send(body.as_bytes()).map_err(|error| {
            if let ureq::Error::Timeout(_) = error {
                let message = format!("{} did not answer within {} s", self.server, self.timeout.as_secs_f64());
                return Failed::ForNow(
                    JudgeError::new(Trouble::Busy, message, "raise `timeout`, or lower `parallel_calls`"),
                    None,
                );
            }
            let message = format!("cannot reach {}: {}", self.server, self.hidden(&error.to_string()));
            Failed::ForNow(JudgeError::new(Trouble::Busy, message, "check the network and `url`"), None)
        })?;
        let status = response.status().as_u16();
        let header = |name: &str| Some(response.headers().get(name)?.to_str().ok()?.trim().to_owned());
        let wish = header("retry-after").and_then(|after| wait(&after, header("date").as_deref()));
        let text = self.text(response)?;
        if status == 200 {
            return self.reply(&text);
        }
        let said = serde_json::from_str::<Value>(&text)
            .ok()
            .and_then(|value| value["error"]["message"].as_str().map(str::to_owned))
            .unwrap_or_default();
        let said: String = self.hidden(&said).chars().filter(|char| !char.is_control()).take(SHOWN).collect();
        let said = if said.is_empty() { said } else { format!(": {said}") };
        let message = format!("{} answered {status}{said}", self.server);
        let refused = |hint: &str| Failed::For(JudgeError::new(Trouble::Refused, message.clone(), hint));
        let busy = |hint: &str| Failed::ForNow(JudgeError::new(Trouble::Busy, message.clone(), hint), wish);
        Err(match status {
            300..=399 => refused("give the address that it leads to as `url`: redirections are not followed"),
            401 | 403 => refused(if self.key.is_some() {
                "the key in PALINODE_JUDGE_KEY does not open it"
            } else {
                "set PALINODE_JUDGE_KEY to the server's key"
            }),
            404 => refused("check `url`, which is the address without /chat/completions, and `model`"),
            408 | 425 | 429 | 500..=599 => busy("try later: verdicts so far are kept"),
            _ => refused("check `model` and `options`"),
        })
    }

    fn text(&self, response: Response<Body>) -> Result<String, Failed> {
        let mut bytes = Vec::new();
        response.into_body().into_reader().take(LARGEST_REPLY).read_to_end(&mut bytes).map_err(|error| {
            let message = format!("{} broke off: {}", self.server, self.hidden(&error.to_string()));
            Failed::ForNow(JudgeError::new(Trouble::Busy, message, "check the network"), None)
        })?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    fn reply(&self, text: &str) -> Result<String, Failed> {
        let value: Value = serde_json::from_str(text).unwrap_or_default();
        let reply = value["choices"][0]["message"]["content"].as_str();
        reply.map(str::to_owned).ok_or_else(|| {
            let message = format!("{} answered without a text of the model", self.server);
            let hint = "the address may not be that of chat completions, or `max_tokens` in `options` leaves no room for a reply";
            Failed::For(JudgeError::new(Trouble::Refused, message, hint))
        })
    }

    fn hidden(&self, text: &str) -> String {
        self.key.as_ref().map_or_else(|| text.to_owned(), |key| key.hide(text))
    }
}

/// The wait that `Retry-After` asks for: a number of seconds, or a date (RFC 9110, section 10.2.3). What it counts from is the server's own
/// `Date`, where it gives one, so that a clock that goes wrong on either side makes no wait longer. A date in the past is no wait.
fn wait(after: &str, date: Option<&str>) -> Option<Duration> {
    if let Ok(seconds) = after.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let until = httpdate::parse_http_date(after).ok()?;
    let now = date.and_then(|date| httpdate::parse_http_date(date).ok()).unwrap_or_else(SystemTime::now);
    Some(until.duration_since(now).unwrap_or_default())
}

/// The server of an address, for messages: scheme and host.
fn server(url: &str, with_key: bool) -> Result<String, (String, &'static str)> {
    let url = url.trim();
    let wrong = |what: &str| {
        (format!("`url` {what}"), "an address such as https://api.openai.com/v1 or http://localhost:8000/v1")
    };
    let (scheme, rest) = url.split_once("://").ok_or_else(|| wrong("has no scheme"))?;
    if !["http", "https"].contains(&scheme) {
        return Err(wrong("is neither http nor https"));
    }
    if url.contains(['?', '#', '@']) || url.chars().any(|char| char.is_whitespace() || char.is_control()) {
        return Err(wrong(
            "has a name, a password, a query or a blank in it: only scheme, host, port and path may be there",
        ));
    }
    let host = rest.split('/').next().unwrap_or_default();
    if host.is_empty() {
        return Err(wrong("names no host"));
    }
    let name = host.rsplit_once(':').filter(|(_, port)| port.parse::<u16>().is_ok()).map_or(host, |(name, _)| name);
    let here = name == "localhost"
        || name == "[::1]"
        || name.parse::<std::net::Ipv4Addr>().is_ok_and(|address| address.is_loopback());
    if with_key && scheme == "http" && !here {
        let message = format!("the key in PALINODE_JUDGE_KEY would travel to {host} in the clear");
        return Err((message, "use https, or unset the variable"));
    }
    Ok(format!("{scheme}://{host}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_seconds_or_a_date() {
        let date = Some("Fri, 27 Nov 2026 10:00:00 GMT");
        assert_eq!(wait("7", None), Some(Duration::from_secs(7)));
        assert_eq!(wait("Fri, 27 Nov 2026 10:01:30 GMT", date), Some(Duration::from_secs(90)));
        // The two older forms that servers may still send.
        assert_eq!(wait("Friday, 27-Nov-26 10:00:05 GMT", date), Some(Duration::from_secs(5)));
        assert_eq!(wait("Fri Nov 27 10:00:05 2026", date), Some(Duration::from_secs(5)));
        // Over, by this machine's clock as well as by the server's.
        assert_eq!(wait("Fri, 27 Nov 2026 09:59:00 GMT", date), Some(Duration::ZERO));
        assert_eq!(wait("Sun, 06 Nov 1994 08:49:37 GMT", None), Some(Duration::ZERO));
        assert_eq!(wait("soon", date), None);
        assert_eq!(wait("-1", date), None);
    }

    #[test]
    fn addresses_that_cannot_be_used_are_refused() {
        for good in
            ["https://api.openai.com/v1", "http://localhost:8000/v1/", "http://127.0.0.1:1", "http://[::1]:8000"]
        {
            assert!(server(good, true).is_ok(), "{good}");
        }
        assert!(server("http://10.0.0.7:8000/v1", false).is_ok());
        assert!(server("http://10.0.0.7:8000/v1", true).unwrap_err().0.contains("in the clear"));
        assert!(server("http://localhost.evil.example/v1", true).is_err());
        for wrong in [
            "api.openai.com",
            "ftp://a/b",
            "https://",
            "https://me:pass@host/v1",
            "https://host/v1?key=a",
            "https://ho st/",
        ] {
            assert!(server(wrong, false).is_err(), "{wrong}");
        }
    }
}
