//! `ultraedit`: one backward pass a round, with statistics over all rounds.

use palinode_edit::{Lifelong, LifelongSettings, edit_lifelong};
use palinode_engine::bounds::{Count, Positive};
use palinode_engine::{Artifact, DescribeCx, Error, FieldError, Port, PortOf, StageContext, StageKind, UnitPlan};
use palinode_model::{MlpModule, WeightId};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::artifacts::model::{Facts, ModelKind, decides_nothing};
use crate::artifacts::requests::RequestsKind;
use crate::artifacts::update::{PlannedUpdate, UpdateKind};
use crate::edit::gradient_rounds::{Made, in_rounds, rounds_of};
use crate::errors::StageFailure;

/// Parameters of `ultraedit`.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UltraeditParams {
    /// The layers whose projections are edited.
    #[schemars(length(min = 1))]
    layers: Vec<usize>,
    /// The projections of each layer. The default is `down` alone; the published runs edit `gate` and `up`.
    #[serde(default = "down")]
    #[schemars(length(min = 1))]
    modules: Vec<Projection>,
    /// The scale of an edit (lr).
    #[serde(default = "published_rate")]
    learning_rate: Positive,
    /// Requests in a backward pass. A gradient is that of the mean token loss of these requests.
    #[serde(default = "ten")]
    mini_batch: Count,
    /// Requests in a round. Each round starts from the model that the round before produced.
    #[serde(default = "hundred")]
    batch_size: Count,
}

/// A projection of the feed-forward network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Projection {
    /// From the key to the value.
    Down,
    /// From the hidden state to the key.
    Up,
    /// What the output of the up-projection is multiplied with; only gated families have it.
    Gate,
}

impl Projection {
    fn module(self) -> MlpModule {
        match self {
            Self::Down => MlpModule::Down,
            Self::Up => MlpModule::Up,
            Self::Gate => MlpModule::Gate,
        }
    }
}

fn down() -> Vec<Projection> {
    vec![Projection::Down]
}

fn published_rate() -> Positive {
    const { Positive::new(1e-6) }
}

fn ten() -> Count {
    const { Count::new(10) }
}

fn hundred() -> Count {
    const { Count::new(100) }
}

impl UltraeditParams {
    fn settings(&self) -> LifelongSettings {
        let of = |&layer: &usize| self.modules.iter().map(move |module| WeightId::new(layer, module.module()));
        LifelongSettings {
            weights: self.layers.iter().flat_map(of).collect(),
            learning_rate: self.learning_rate.get(),
            mini_batch: self.mini_batch.get(),
        }
    }

    fn check(&self, facts: Option<&Facts>) -> Vec<FieldError> {
        let known = facts.map(|facts| facts.check_dense(&self.layers, "`ultraedit`", |i| format!("layers[{i}]")));
        let mut errors = known.unwrap_or_default();
        for (name, empty) in [("layers", self.layers.is_empty()), ("modules", self.modules.is_empty())] {
            if empty {
                errors.push(FieldError::new(name, format!("`{name}` is empty")).expected("one or more"));
            }
        }
        if let Some(i) = (1..self.layers.len()).find(|&i| self.layers[..i].contains(&self.layers[i])) {
            errors.push(FieldError::new(format!("layers[{i}]"), format!("layer {} is given twice", self.layers[i])));
        }
        if let Some(i) = (1..self.modules.len()).find(|&i| self.modules[..i].contains(&self.modules[i])) {
            let name = self.modules[i].module().name();
            errors.push(FieldError::new(format!("modules[{i}]"), format!("`{name}` is given twice")));
        }
        errors
    }
}

/// The unedited model.
const MODEL: PortOf<ModelKind> = PortOf::required("model", "The unedited model.");
/// The facts to write.
const REQUESTS: PortOf<RequestsKind> = PortOf::required("requests", "The facts to write, in order.");

/// See [`StageKind::DOC`].
pub struct Ultraedit;

impl StageKind for Ultraedit {
    type Params = UltraeditParams;
    const NAME: &'static str = "ultraedit";
    const VERSION: u32 = 2;
    const SUMMARY: &'static str = "Edits in rounds of one backward pass, with statistics over all rounds (UltraEdit).";
    const DOC: &'static str = "\
UltraEdit (arXiv 2505.14679) needs no targets, no second moments and no plan. One backward pass gives, for every edited projection \
and every token of an answer, the input h and the gradient g of the output. Both are normalized by running statistics of \
all rounds so far: ĥ and ĝ. The projection should then map h to v = −lr ‖ĥ‖² ĝ, in least squares:

  Δᵀ = (hᵀh + I)⁻¹ hᵀ v

The statistics are kept with each round, so that an interrupted or extended sequence goes on with them.

The result is an edited model like that of `sequence`, with low-rank changes.";
    type Output = UpdateKind;

    fn hands_on() -> Option<&'static str> {
        Some(MODEL.name)
    }

    fn decides_nothing(file: &str) -> bool {
        decides_nothing(file)
    }

    fn carries() -> &'static [u32] {
        // The same but for last digits.
        &[1]
    }

    fn inputs() -> Vec<Port> {
        vec![MODEL.port(), REQUESTS.port()]
    }

    fn units(params: &UltraeditParams, cx: &DescribeCx<'_>) -> Option<UnitPlan> {
        Some(rounds_of(cx.input(REQUESTS).requests?, params.batch_size.get()))
    }

    fn describe(params: &UltraeditParams, cx: &DescribeCx<'_>) -> Result<PlannedUpdate, Vec<FieldError>> {
        let model = cx.input(MODEL).model;
        let errors = params.check(model.as_ref());
        let planned = PlannedUpdate { model, batches: Some(1), low_rank: Some(true) };
        if errors.is_empty() { Ok(planned) } else { Err(errors) }
    }

    fn run(params: &UltraeditParams, cx: &StageContext) -> Result<Artifact, Error> {
        let (base, asked) = (cx.input(MODEL)?, cx.input(REQUESTS)?);
        let settings = params.settings();
        let size = Some(params.batch_size.get());
        let with = json!({ "ultraedit": params });
        in_rounds::<Lifelong>(cx, &base, &asked, size, &with, |model, text, block, lifelong| {
            // A projection that the family does not have is a mistake before anything is computed.
            for &weight in &settings.weights {
                model.weight(weight).map_err(StageFailure::stage)?;
            }
            let edits = edit_lifelong(model, text, block, &settings, lifelong).map_err(StageFailure::stage)?;
            let changes = edits.into_iter().map(|edit| (edit.weight, edit.delta, Some(edit.diagnostics)));
            Ok(Made { changes: changes.collect(), loss: None })
        })
    }
}
