//! Requests to the Hub.

use std::io::Read;
use std::time::Duration;

use ureq::config::RedirectAuthHeaders;
use ureq::http::Response;
use ureq::{Agent, Body};

use crate::listing::Listing;
use crate::{HubError, Kind, Reference};

/// A list of files is a few MiB at most.
const LARGEST_LISTING: u64 = 64 << 20;

/// Talks to one endpoint.
pub struct Client {
    agent: Agent,
    endpoint: String,
    token: Option<String>,
}

impl Client {
    pub fn new(endpoint: &str, token: Option<String>) -> Self {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_connect(Some(Duration::from_secs(20)))
            .timeout_recv_response(Some(Duration::from_mins(1)))
            // Large files are given by other hosts, which have no business with the token.
            .redirect_auth_headers(RedirectAuthHeaders::SameHost)
            .user_agent(concat!("palinode/", env!("CARGO_PKG_VERSION")))
            .build();
        Self { agent: config.into(), endpoint: endpoint.trim_end_matches('/').to_owned(), token }
    }

    /// What a revision is and holds.
    pub fn listing(&self, reference: &Reference) -> Result<Listing, HubError> {
        let kind = match reference.kind {
            Kind::Model => "models",
            Kind::Dataset => "datasets",
        };
        let (repository, revision) = (&reference.repository, reference.escaped_revision());
        let response = self.get(&format!("/api/{kind}/{repository}/revision/{revision}?blobs=true"), 0)?;
        let response = self.good(response, reference)?;
        let mut json = Vec::new();
        let read = response.into_body().into_reader().take(LARGEST_LISTING).read_to_end(&mut json);
        read.map_err(|error| self.failed(&error.to_string()))?;
        let listing: Listing = serde_json::from_slice(&json)
            .map_err(|error| HubError::new(format!("{} answered what is no list of files: {error}", self.endpoint)))?;
        if crate::cache::is_commit(&listing.sha) {
            Ok(listing)
        } else {
            Err(HubError::new(format!("{} answered with no commit: {:?}", self.endpoint, listing.sha)))
        }
    }

    /// A file's contents from byte `from` on, and whether they do begin there rather than at 0.
    pub fn file(
        &self,
        reference: &Reference,
        commit: &str,
        name: &str,
        from: u64,
    ) -> Result<(impl Read + use<>, bool), HubError> {
        let kind = if reference.kind == Kind::Dataset { "datasets/" } else { "" };
        let response = self.get(&format!("/{kind}{}/resolve/{commit}/{}", reference.repository, escape(name)), from)?;
        let response = self.good(response, reference)?;
        let partial = response.status().as_u16() == 206;
        Ok((response.into_body().into_reader(), partial))
    }

    /// Why a body ended early.
    pub fn failed(&self, why: &str) -> HubError {
        HubError::new(format!("cannot reach {}: {why}", self.endpoint))
            .hint("check the network, or HF_ENDPOINT; what was downloaded is kept, and the next run goes on from there")
    }

    fn get(&self, route: &str, from: u64) -> Result<Response<Body>, HubError> {
        let mut request = self.agent.get(format!("{}{route}", self.endpoint));
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        if from > 0 {
            request = request.header("range", format!("bytes={from}-"));
        }
        request.call().map_err(|error| self.failed(&error.to_string()))
    }

    fn good(&self, response: Response<Body>, reference: &Reference) -> Result<Response<Body>, HubError> {
        let status = response.status().as_u16();
        match status {
            200 | 206 => Ok(response),
            401 | 403 => {
                let hint = match self.token {
                    Some(_) => "the token in HF_TOKEN does not open it: accept its terms on its page, or use another",
                    None => "it may be gated, private, or misspelt: set HF_TOKEN to a token that may read it",
                };
                Err(HubError::new(format!("{} does not give {reference} ({status})", self.endpoint)).hint(hint))
            }
            404 => Err(HubError::new(format!("{} has no {reference}", self.endpoint))
                .hint("check the owner, the name and the revision")),
            429 => Err(HubError::new(format!("{} asks to wait (429)", self.endpoint))
                .hint("try later, or set HF_TOKEN: the limits are then higher")),
            _ => Err(HubError::new(format!("{} answered {status}", self.endpoint)).hint("try later")),
        }
    }
}

/// A path as a part of a route.
fn escape(path: &str) -> String {
    let mut text = String::new();
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~/".contains(&byte) {
            text.push(byte as char);
        } else {
            text.push_str(&format!("%{byte:02X}"));
        }
    }
    text
}
