//! `finetune`: one located weight tuned by gradient descent.

use palinode_edit::{TuneLoss, TuneSettings, tune};
use palinode_engine::bounds::{Count, NonNegative, Positive};
use palinode_engine::{Artifact, DescribeCx, Error, FieldError, Port, PortOf, StageContext, StageKind, UnitPlan};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::artifacts::model::{ModelKind, decides_nothing};
use crate::artifacts::requests::RequestsKind;
use crate::artifacts::update::{PlannedUpdate, UpdateKind};
use crate::edit::gradient_rounds::{Made, in_rounds, rounds_of};
use crate::errors::StageFailure;

/// Passes at most.
const MOST_EPOCHS: usize = 100_000;

/// Parameters of `finetune`; the names in brackets are those of the published hyperparameter files.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FinetuneParams {
    /// The layer whose down-projection is tuned.
    layer: usize,
    /// What the loss is read from (objective_optimization).
    #[serde(default)]
    loss: Loss,
    /// Passes over the requests of a round, at most (num_steps).
    #[serde(default = "twenty_five")]
    epochs: Count,
    /// Requests in a step of Adam (batch_size). The default is 64.
    #[serde(default = "sixty_four")]
    mini_batch: Count,
    /// Puts the requests of a round in another order in each pass, by this seed. The default keeps their order.
    #[serde(default)]
    shuffle: Option<u64>,
    /// Adam's step size (lr).
    #[serde(default = "usual_rate")]
    learning_rate: Positive,
    /// Every entry of the weight stays within this distance of what it was before the round (norm_constraint). The default is no bound.
    #[serde(default)]
    bound: Option<Positive>,
    /// A step whose loss is below this changes nothing, and a pass whose mean loss is below it is the last.
    #[serde(default = "hundredth")]
    stop_loss: NonNegative,
    /// Requests in a round. Each round starts from the model that the round before produced. The default is one round of all requests.
    #[serde(default)]
    batch_size: Option<Count>,
}

/// What a loss is read from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Loss {
    /// All tokens of the target at the prompt's last token, as if each of them came first (FT-L).
    PromptLast,
    /// The target's tokens, each after those before it (FT-M, LocFT-BF).
    #[default]
    Target,
}

fn twenty_five() -> Count {
    const { Count::new(25) }
}

fn sixty_four() -> Count {
    const { Count::new(64) }
}

fn usual_rate() -> Positive {
    const { Positive::new(5e-4) }
}

fn hundredth() -> NonNegative {
    const { NonNegative::new(0.01) }
}

impl FinetuneParams {
    fn settings(&self) -> TuneSettings {
        TuneSettings {
            layer: self.layer,
            loss: match self.loss {
                Loss::PromptLast => TuneLoss::PromptLast,
                Loss::Target => TuneLoss::Target,
            },
            epochs: self.epochs.get(),
            mini_batch: self.mini_batch.get(),
            shuffle: self.shuffle,
            learning_rate: self.learning_rate.get(),
            bound: self.bound.map(Positive::get),
            stop_loss: self.stop_loss.get(),
        }
    }
}

/// The unedited model.
const MODEL: PortOf<ModelKind> = PortOf::required("model", "The unedited model.");
/// The facts to write.
const REQUESTS: PortOf<RequestsKind> = PortOf::required("requests", "The facts to write, in order.");

/// See [`StageKind::DOC`].
pub struct Finetune;

impl StageKind for Finetune {
    type Params = FinetuneParams;
    const NAME: &'static str = "finetune";
    const VERSION: u32 = 3;
    const SUMMARY: &'static str = "Tunes the down-projection of one layer by gradient descent: FT-L, FT-M, LocFT-BF.";
    const DOC: &'static str = "\
The baselines of editing. Adam changes the down-projection of one layer until the model says the new targets after their bare \
prompts. Nothing is preserved but by `bound` and by stopping. Known methods are values of the parameters:

  FT-L       loss: prompt_last, bound: 0.0005, learning_rate: 0.0005
  FT-M       loss: target, no bound
  LocFT-BF   loss: target, many requests in a round, mini_batch: 8, shuffle: 1

The bias of the projection, where there is one, is tuned with it, as in the published code.

The result is an edited model like that of `sequence`. Its change is kept as a whole weight: it cannot become a LoRA adapter, \
and its rounds cannot be measured one by one.";
    type Output = UpdateKind;

    fn hands_on() -> Option<&'static str> {
        Some(MODEL.name)
    }

    fn decides_nothing(file: &str) -> bool {
        decides_nothing(file)
    }

    fn carries() -> &'static [u32] {
        // The same but for last digits.
        &[2]
    }

    fn inputs() -> Vec<Port> {
        vec![MODEL.port(), REQUESTS.port()]
    }

    fn units(params: &FinetuneParams, cx: &DescribeCx<'_>) -> Option<UnitPlan> {
        let count = cx.input(REQUESTS).requests?;
        Some(rounds_of(count, params.batch_size.map_or(count.max(1), Count::get)))
    }

    fn describe(params: &FinetuneParams, cx: &DescribeCx<'_>) -> Result<PlannedUpdate, Vec<FieldError>> {
        let model = cx.input(MODEL).model;
        let check = |facts: &crate::artifacts::model::Facts| {
            facts.check_dense(&[params.layer], "`finetune`", |_| "layer".to_owned())
        };
        let mut errors = model.as_ref().map(check).unwrap_or_default();
        if params.epochs.get() > MOST_EPOCHS {
            let message = format!("`epochs` is {}", params.epochs.get());
            errors.push(FieldError::new("epochs", message).expected(format!("a whole number from 1 to {MOST_EPOCHS}")));
        }
        let planned = PlannedUpdate { model, batches: Some(1), low_rank: Some(false) };
        if errors.is_empty() { Ok(planned) } else { Err(errors) }
    }

    fn run(params: &FinetuneParams, cx: &StageContext) -> Result<Artifact, Error> {
        let (base, asked) = (cx.input(MODEL)?, cx.input(REQUESTS)?);
        let size = params.batch_size.map(Count::get);
        in_rounds::<()>(cx, &base, &asked, size, &json!({ "finetune": params }), |model, text, block, ()| {
            let tuned = tune(model, text, block, &params.settings(), |_, _| {}).map_err(StageFailure::stage)?;
            let loss = tuned.losses.last().copied();
            let changes = tuned.changes.into_iter().map(|(weight, delta)| (weight, delta, None)).collect();
            Ok(Made { changes, loss })
        })
    }
}
