//! Single files of data by their address, kept in a cache of ours.
//!
//! Some data sets are on no hub but on their authors' pages: CounterFact is one file at one address. Such a file is fetched once and kept
//! as `DIR/<first 16 digits of the address's SHA-256>/<name>`. Nothing says what it should hold, so that it is taken as it arrives; keys of results have its
//! contents.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::PathBuf;
use std::time::Duration;

use sha2::{Digest, Sha256};
use ureq::Agent;

use crate::{HubError, Progress};

/// The largest file that is fetched, in bytes: that of the largest file of requests which is read.
const LARGEST: u64 = 512 << 20;
const BUFFER: usize = 1 << 20;

/// Files by their address.
#[derive(Clone, Debug)]
pub struct Web {
    /// The folder of the cache.
    pub cache: PathBuf,
    /// Whether the network must not be used.
    pub offline: bool,
}

/// Whether a text is the address of a file: `https://`, or `http://` of this machine alone.
pub fn is_address(text: &str) -> bool {
    let local = |rest: &str| ["127.0.0.1", "localhost", "[::1]"].contains(&host(rest));
    text.starts_with("https://") || text.strip_prefix("http://").is_some_and(local)
}

/// The host that an address without its scheme begins with.
fn host(rest: &str) -> &str {
    let authority = &rest[..rest.find(['/', '?', '#']).unwrap_or(rest.len())];
    // What stands before an @ is no host.
    if authority.contains('@') {
        return "";
    }
    if authority.starts_with('[') {
        return &authority[..authority.find(']').map_or(authority.len(), |end| end + 1)];
    }
    &authority[..authority.find(':').unwrap_or(authority.len())]
}

impl Web {
    /// As the environment says: `XDG_CACHE_HOME` or `HOME`, and `HF_HUB_OFFLINE`.
    pub fn from_env() -> Self {
        let var = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let cache = var("XDG_CACHE_HOME").map(PathBuf::from);
        let cache = cache.or_else(|| Some(PathBuf::from(var("HOME")?).join(".cache"))).unwrap_or_default();
        Self { cache: cache.join("palinode/files"), offline: crate::Hub::from_env().offline }
    }

    /// The file of an address, where it is in the cache.
    pub fn cached(&self, address: &str) -> Option<PathBuf> {
        Some(self.place(address)).filter(|path| path.is_file())
    }

    /// Fetches the file of an address, if it is not in the cache. `watch` says whether to go on.
    ///
    /// # Errors
    /// [`HubError`] where the network may not be used or does not answer, there is no such file, it has more than 512 MiB, the cache cannot
    /// be written, or the connection ends early.
    pub fn fetch(&self, address: &str, watch: &mut dyn FnMut(Progress<'_>) -> bool) -> Result<PathBuf, HubError> {
        if let Some(path) = self.cached(address) {
            return Ok(path);
        }
        if self.offline {
            return Err(self.absent(address).hint(crate::FORBIDDEN));
        }
        let path = self.place(address);
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
        let failed = |why: &str| {
            HubError::new(format!("cannot fetch {address}: {why}"))
                .hint("check the network, or fetch the file some other way and give its path")
        };
        let config = Agent::config_builder()
            .http_status_as_error(false)
            // Nor does a redirection lead to where anyone could change what arrives.
            .https_only(address.starts_with("https://"))
            .timeout_connect(Some(Duration::from_secs(20)))
            .timeout_recv_response(Some(Duration::from_mins(1)))
            .user_agent(concat!("palinode/", env!("CARGO_PKG_VERSION")))
            .build();
        let response = Agent::from(config).get(address).call().map_err(|error| failed(&error.to_string()))?;
        if response.status().as_u16() != 200 {
            return Err(failed(&format!("the server answered {}", response.status().as_u16())));
        }
        let total = response.body().content_length();
        if total.is_some_and(|total| total > LARGEST) {
            return Err(failed("it has more than 512 MiB"));
        }
        let part = path.with_extension(format!("{}.part", std::process::id()));
        let io = |error| HubError::io("write", &part, &error);
        fs::create_dir_all(path.parent().unwrap_or(&self.cache)).map_err(io)?;
        let mut target = File::create(&part).map_err(io)?;
        let mut source = response.into_body().into_reader().take(LARGEST + 1);
        let mut copy = || {
            let (mut buffer, mut done) = (vec![0; BUFFER], 0);
            loop {
                let read = source.read(&mut buffer).map_err(|error| failed(&error.to_string()))?;
                if read == 0 {
                    break;
                }
                target.write_all(&buffer[..read]).map_err(io)?;
                done += read as u64;
                if !watch(Progress { file: &name, done, total: total.unwrap_or(0) }) {
                    return Err(HubError::new("interrupted"));
                }
            }
            match total {
                _ if done > LARGEST => Err(failed("it has more than 512 MiB")),
                Some(total) if done != total => Err(failed("the connection ended early")),
                _ => target.sync_all().map_err(io),
            }
        };
        if let Err(error) = copy().and_then(|()| fs::rename(&part, &path).map_err(io)) {
            let _ = fs::remove_file(&part);
            return Err(error);
        }
        Ok(path)
    }

    /// Says that a file is not in the cache.
    pub fn absent(&self, address: &str) -> HubError {
        HubError::new(format!("{address} is not in the cache, {}", self.cache.display()))
    }

    /// Where a file lies once it is fetched: two addresses never share a place, whatever their names.
    fn place(&self, address: &str) -> PathBuf {
        let digest: String = Sha256::digest(address).iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        let path = address.split(['?', '#']).next().unwrap_or_default();
        let name = path.rsplit('/').next().unwrap_or_default();
        let safe = |char: char| char.is_ascii_alphanumeric() || "-_.".contains(char);
        let fine = !name.is_empty() && !name.starts_with('.') && name.chars().all(safe);
        self.cache.join(digest).join(if fine { name } else { "file" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_https_or_of_this_machine() {
        for fine in ["https://example.org/a.json", "http://127.0.0.1:80/a", "http://localhost/a", "http://[::1]:8/a"] {
            assert!(is_address(fine), "{fine}");
        }
        for other in [
            "http://example.org/a",
            "http://127.0.0.1.example.org/a",
            "ftp://a/b",
            "hf:a/b",
            "http://localhost:1@example.org/a",
            "a",
        ] {
            assert!(!is_address(other), "{other}");
        }
    }

    #[test]
    fn names_stay_in_the_cache() {
        let web = Web { cache: "/cache".into(), offline: true };
        for address in ["https://a/..", "https://a/b/.x", "https://a/", "https://a/b?/../c", "https://a/%2e%2e"] {
            let place = web.place(address);
            assert!(place.starts_with("/cache") && place.components().count() == 4, "{}", place.display());
            assert!(place.file_name().is_some());
        }
        assert_ne!(web.place("https://a/x.json"), web.place("https://b/x.json"));
    }
}
