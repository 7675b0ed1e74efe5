//! Edit requests on their way between stages.

use palinode_data::{EditRequest, records_of};
use palinode_engine::shown::Shown;
use palinode_engine::{Artifact, Digest, Error, Given, Kind, StageContext, artifact};
use palinode_eval::MetricSet;
use serde::{Deserialize, Serialize};

use crate::artifacts::chat::Chat;
use crate::artifacts::model::file;

/// The logical name of the requests.
pub const REQUESTS: &str = "requests.json";

/// Edit requests.
pub struct RequestsKind;

impl Kind for RequestsKind {
    const NAME: &'static str = "requests";
    type Facts = RequestsFacts;
    type Planned = PlannedRequests;
}

/// What an artifact of requests says of itself.
#[derive(Debug, Serialize, Deserialize)]
pub struct RequestsFacts {
    /// How many they are.
    pub requests: usize,
    /// The metrics that this data set is judged by, where that is not decided by the requests' fields.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub judged: Option<Vec<MetricSet>>,
    /// The chat whose messages their prompts are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chat: Option<Chat>,
    /// How many were taken of how many, where a model chose.
    #[serde(flatten)]
    pub shown: Shown,
}

/// What is known of requests before they are read.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct PlannedRequests {
    /// How many they are.
    pub requests: Option<usize>,
    /// How many records they are of, where some have several.
    pub records: Option<usize>,
}

impl PlannedRequests {
    /// Of these requests.
    pub fn of(requests: &[EditRequest]) -> Self {
        let records = records_of(requests).len();
        Self { requests: Some(requests.len()), records: (records < requests.len()).then_some(records) }
    }

    /// The records, which batches are counted in.
    pub fn records(&self) -> Option<usize> {
        self.records.or(self.requests)
    }
}

/// An artifact of requests.
pub fn put(
    cx: &StageContext,
    requests: &[EditRequest],
    judged: Option<Vec<MetricSet>>,
    chat: Option<Chat>,
) -> Result<Artifact, Error> {
    let bytes = serde_json::to_vec(requests).map_err(|error| Error::internal(error.to_string()))?;
    let facts = RequestsFacts { requests: requests.len(), judged, chat, shown: Shown::default() };
    Ok(artifact::<RequestsKind>(&facts)?.with_file(REQUESTS, cx.put_bytes(&bytes)?))
}

/// An artifact of some of the requests of another one, judged as those, with what the choice shows.
pub fn put_chosen(
    cx: &StageContext,
    requests: &[EditRequest],
    from: &Given<'_, RequestsKind>,
    shown: Shown,
) -> Result<Artifact, Error> {
    let bytes = serde_json::to_vec(requests).map_err(|error| Error::internal(error.to_string()))?;
    let RequestsFacts { judged, chat, .. } = &from.facts;
    let facts = RequestsFacts { requests: requests.len(), judged: judged.clone(), chat: chat.clone(), shown };
    Ok(artifact::<RequestsKind>(&facts)?.with_file(REQUESTS, cx.put_bytes(&bytes)?))
}

/// The requests of an artifact.
pub fn requests(cx: &StageContext, given: &Given<'_, RequestsKind>) -> Result<Vec<EditRequest>, Error> {
    let bytes = cx.read(file(given, REQUESTS)?)?;
    serde_json::from_slice(&bytes).map_err(|error| Error::internal(format!("stored requests: {error}")))
}

/// The contents of an artifact's requests: the same for the same requests, wherever they are from.
pub fn contents(given: &Given<'_, RequestsKind>) -> Result<Digest, Error> {
    let digest = file(given, REQUESTS)?.digest;
    Ok(match &given.facts.chat {
        None => digest,
        Some(chat) => Digest::of(format!("{digest} {}", chat.name()).as_bytes()),
    })
}
