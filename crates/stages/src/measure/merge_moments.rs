//! `merge_moments`: second moments over disjoint corpora as one.

use palinode_engine::{Artifact, DescribeCx, Digest, Error, FieldError, Given, Port, PortOf, StageContext, StageKind};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::artifacts::moments::{Gathered, MomentsKind, PlannedMoments, Put, read_layer};
use crate::errors::StageFailure;
use crate::units::with_file;

/// Parameters of `merge_moments`: none.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MergeMomentsParams {}

/// One side.
const OURS: PortOf<MomentsKind> = PortOf::required("moments", "Second moments.");
/// The other.
const THEIRS: PortOf<MomentsKind> = PortOf::required("other", "The second moments to add, from other documents.");

/// See [`StageKind::DOC`].
pub struct MergeMoments;

impl StageKind for MergeMoments {
    type Params = MergeMomentsParams;
    const NAME: &'static str = "merge_moments";
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "Adds second moments that were measured over disjoint corpora.";
    const DOC: &'static str = "\
Adds sums and counts, layer by layer. The result is what one pass over both corpora would have measured, except for \
rounding. Both inputs must belong to the same model and the same layers. To merge three or more, use this stage several \
times.

Corpora must be disjoint, because a document in both would count twice. A file that was read for both inputs is an error. To \
use more of the same corpus, raise `samples` of `covariance`, which continues from the existing sums.";
    type Output = MomentsKind;

    fn inputs() -> Vec<Port> {
        vec![OURS.port(), THEIRS.port()]
    }

    fn describe(_: &MergeMomentsParams, cx: &DescribeCx<'_>) -> Result<PlannedMoments, Vec<FieldError>> {
        let PlannedMoments { layers, mixture } = cx.input(OURS);
        let (Some(ours), Some(theirs)) = (layers, cx.input(THEIRS).layers) else {
            return Ok(PlannedMoments { layers: None, mixture });
        };
        match other_layers(&ours, &theirs) {
            Some(message) => Err(vec![FieldError::new("", message).hint(LAYERS)]),
            None => Ok(PlannedMoments { layers: Some(ours), mixture }),
        }
    }

    fn run(_: &MergeMomentsParams, cx: &StageContext) -> Result<Artifact, Error> {
        let (ours, theirs) = (cx.input(OURS)?, cx.input(THEIRS)?);
        if ours.facts.base != theirs.facts.base {
            return Err(Error::input("the second moments are of different models")
                .hint("connect every `model` port of the pipeline to the same stage"));
        }
        let have = ours.facts.numbers();
        if let Some(message) = other_layers(&have, &theirs.facts.numbers()) {
            return Err(Error::input(message).hint(LAYERS));
        }
        let mut read = sources(&ours)?.to_vec();
        let added = sources(&theirs)?;
        if let Some(both) = added.iter().find(|digest| read.contains(digest)) {
            return Err(Error::input(format!(
                "both sides were measured on the same file, {}: its documents would count twice",
                both.short()
            ))
            .hint(
                "for more of one corpus raise `samples` or `tokens` of the covariance stage: it goes on where it was",
            ));
        }
        read.extend_from_slice(added);
        let bar = cx.progress("layers", Some(have.len() as u64));
        let mut made = Gathered::new(ours.facts.base.clone());
        for layer in have {
            cx.check_interrupt()?;
            let of = json!({ "moments": [ours.digest().to_string(), theirs.digest().to_string()], "layer": layer });
            let put = with_file(
                cx,
                &of,
                |put: &Put| put.file,
                || {
                    let mut moment = read_layer(cx, &ours, &ours.facts.layers, layer)?;
                    moment
                        .merge(&read_layer(cx, &theirs, &theirs.facts.layers, layer)?)
                        .map_err(StageFailure::stage)?;
                    Put::new(cx, layer, &moment)
                },
            )?;
            made.add(put);
            bar.inc(1);
        }
        made.artifact(ours.facts.documents.zip(theirs.facts.documents).map(|(a, b)| a + b), read)
    }
}

/// The contents that sums were measured on or read from.
fn sources<'a>(given: &'a Given<'_, MomentsKind>) -> Result<&'a [Digest], Error> {
    let known = given.facts.sources.as_deref();
    known.ok_or_else(|| Error::internal("stored second moments do not say what they were measured on"))
}

/// What to do where the layers differ.
const LAYERS: &str = "measure or load the same layers on both sides";

/// Says so where two sides are not of the same layers.
fn other_layers(ours: &[usize], theirs: &[usize]) -> Option<String> {
    let only = |a: &[usize], b: &[usize]| a.iter().find(|layer| !b.contains(layer)).copied();
    let told = |layer: usize, side: &str| format!("layer {layer} is on the side of `{side}` alone");
    let here = only(ours, theirs).map(|layer| told(layer, "moments"));
    here.or_else(|| only(theirs, ours).map(|layer| told(layer, "other")))
}
