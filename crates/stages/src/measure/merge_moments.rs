//! `merge_moments`: second moments over disjoint corpora as one.

use palinode_engine::{Artifact, ArtifactKind, DescribeCx, FieldError, Port, StageContext, StageError, StageKind};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::artifacts::moments::{Gathered, LayerFacts, MOMENTS, layers, read_layer, sources};
use crate::errors::StageFailure;

/// Parameters of `merge_moments`: none.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MergeMomentsParams {}

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
    const OUTPUT: ArtifactKind = MOMENTS;

    fn inputs() -> Vec<Port> {
        let port = |name, doc| Port { name, accepts: &[MOMENTS], required: true, doc };
        vec![port("moments", "Second moments."), port("other", "The second moments to add, from other documents.")]
    }

    fn describe(_: &MergeMomentsParams, cx: &DescribeCx<'_>) -> Result<Value, Vec<FieldError>> {
        let (ours, theirs) = (layers(cx.input("moments")), layers(cx.input("other")));
        let (Some(ours), Some(theirs)) = (ours, theirs) else { return Ok(Value::Null) };
        match other_layers(&ours, &theirs) {
            Some(message) => Err(vec![FieldError::new("", message).hint(LAYERS)]),
            None => Ok(json!({ "layers": ours.into_iter().map(LayerFacts::planned).collect::<Vec<_>>() })),
        }
    }

    fn run(_: &MergeMomentsParams, cx: &StageContext) -> Result<Artifact, StageError> {
        let (ours, theirs) = (cx.input("moments")?, cx.input("other")?);
        if ours.meta["base"] != theirs.meta["base"] {
            return Err(StageError::input("the second moments are of different models")
                .hint("connect every `model` port of the pipeline to the same stage"));
        }
        let have = layers(&ours.meta).unwrap_or_default();
        if let Some(message) = other_layers(&have, &layers(&theirs.meta).unwrap_or_default()) {
            return Err(StageError::input(message).hint(LAYERS));
        }
        let mut read = sources(ours)?;
        let added = sources(theirs)?;
        if let Some(both) = added.iter().find(|digest| read.contains(digest)) {
            return Err(StageError::input(format!(
                "both sides were measured on the same file, {}: its documents would count twice",
                both.short()
            ))
            .hint(
                "for more of one corpus raise `samples` or `tokens` of the covariance stage: it goes on where it was",
            ));
        }
        read.extend(added);
        let base = ours.meta["base"].as_str().unwrap_or_default();
        let bar = cx.progress("layers", Some(have.len() as u64));
        let mut made = Gathered::new(base.to_owned());
        for layer in have {
            cx.check_interrupt()?;
            let mut moment = read_layer(cx, ours, layer)?;
            moment.merge(&read_layer(cx, theirs, layer)?).map_err(StageFailure::stage)?;
            made.put(cx, layer, &moment)?;
            bar.inc(1);
        }
        let documents = |side: &Artifact| side.meta["documents"].as_u64();
        Ok(made.artifact(documents(ours).zip(documents(theirs)).map(|(a, b)| a + b), read))
    }
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
