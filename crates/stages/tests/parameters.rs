//! Bounds of parameters: the same in the types that read them and in the schema that editors use.

use palinode_engine::StageInfo;
use palinode_stages::catalogue;
use serde_json::{Value, json};

/// The schema of a parameter, dotted where it lies within another.
fn schema(info: &StageInfo, path: &str) -> Value {
    path.split('.').fold(info.schema.clone(), |schema, name| schema["properties"][name].clone())
}

fn check(stage: &str, path: &str, bound: (&str, i64), good: Value, bad: Value, message: &str) {
    let stages = catalogue();
    let kind = stages.get(stage).unwrap();
    let found = schema(kind.info(), path);
    assert_eq!(found[bound.0], json!(bound.1), "{stage}.{path}: {found}");
    let required = match stage {
        "solve" => json!({ "objective": "memit" }),
        "targets" | "preflight" => json!({ "layer": 0 }),
        "covariance" | "perplexity" => json!({ "corpus": "corpus.txt", "layers": [0] }),
        "sequence" => json!({ "targets": { "layer": 0 }, "solve": { "objective": "memit" } }),
        _ => json!({}),
    };
    let read = |value: Value| {
        let mut with = required.clone();
        if stage == "perplexity" {
            with.as_object_mut().unwrap().remove("layers");
        }
        let place = path.split('.').fold(&mut with, |at, name| &mut at[name]);
        *place = value;
        kind.params(with)
    };
    read(good).unwrap_or_else(|errors| panic!("{stage}.{path}: {errors:?}"));
    let errors = read(bad).unwrap_err();
    assert_eq!(
        errors.iter().map(|error| (error.field.as_str(), error.message.as_str())).collect::<Vec<_>>(),
        [(path, message)]
    );
}

#[test]
fn bounds_stand_in_the_schema_and_hold() {
    let (above, least) = (("exclusiveMinimum", 0), |least| ("minimum", least));
    check("solve", "lambda", least(0), json!(1), json!(-1), "`lambda` is -1");
    check("solve", "update_norm_lambda", least(0), json!(0), json!(-0.5), "`update_norm_lambda` is -0.5");
    check("solve", "batch_size", least(1), json!(null), json!(0), "`batch_size` is 0");
    check("sequence", "solve.lambda", least(0), json!(1), json!(-1), "`lambda` is -1");
    check("sequence", "rounds", least(1), json!(2), json!(0), "`rounds` is 0");
    check("targets", "steps", least(1), json!(1), json!(0), "`steps` is 0");
    check("targets", "clamp", above, json!(0.5), json!(-2), "`clamp` is -2");
    check("targets", "kl_factor", least(0), json!(0), json!(-2), "`kl_factor` is -2");
    check("preflight", "cosine", ("maximum", 1), json!(1), json!(1.5), "`cosine` is 1.5");
    check("covariance", "samples", least(1), json!(1), json!(-3), "`samples` is -3");
    check("covariance", "batch_tokens", least(1), json!(1), json!(0), "`batch_tokens` is 0");
    check("perplexity", "length", least(2), json!(2), json!(1), "`length` is 1");
}

#[test]
fn a_number_of_tokens_is_not_nothing() {
    let stages = catalogue();
    let read = |tokens: Value| {
        let with = json!({ "corpus": "corpus.txt", "layers": [0], "tokens": tokens });
        stages.get("covariance").unwrap().params(with).map(|_| ()).map_err(|errors| errors[0].message.clone())
    };
    assert_eq!(read(json!("10f")), Ok(()));
    assert_eq!(read(json!(0)), Err("`tokens` is 0".to_owned()));
    assert_eq!(read(json!("0f")), Err("`tokens` is 0f".to_owned()));
}

/// A type with bounds is written as the number that it is, so that keys are those of every earlier version.
#[test]
fn bounds_are_in_no_key() {
    let stages = catalogue();
    let value = |stage: &str, with: Value| stages.get(stage).unwrap().params(with).unwrap().value;
    assert_eq!(
        value("solve", json!({ "objective": "emmet", "lambda": 10, "emmet_lambda": 0.1, "batch_size": 4 })),
        json!({ "objective": "emmet", "lambda": 10.0, "update_norm_lambda": 0.0, "emmet_lambda": 0.1, "batch_size": 4 })
    );
    assert_eq!(
        value("targets", json!({ "layer": 3 })),
        json!({
            "site": "block_output", "layer": 3, "steps": 20, "learning_rate": 0.5, "kl_factor": 0.0625,
            "weight_decay": 0.5, "clamp": 0.75, "stop_loss": 0.05, "parallel_requests": null,
        })
    );
}

/// What would take years, or all memory, is refused before anything runs.
#[test]
fn more_than_anyone_means_is_refused() {
    let stages = catalogue();
    let inputs = std::collections::BTreeMap::new();
    let cx = palinode_engine::DescribeCx::new(std::path::Path::new("."), inputs);
    for (stage, with, field) in [
        ("targets", json!({ "layer": 0, "steps": u64::MAX }), "steps"),
        ("evaluate", json!({ "resamples": 1_000_000_000 }), "resamples"),
        ("templates", json!({ "generate": [{ "count": 1_000_000_000_000u64, "length": 3 }] }), "generate"),
    ] {
        let kind = stages.get(stage).unwrap();
        let params = kind.params(with).unwrap();
        let errors = kind.describe(&params, &cx).unwrap_err();
        assert_eq!(errors.iter().map(|error| error.field.as_str()).collect::<Vec<_>>(), [field], "{stage}");
        assert!(errors[0].expected.is_some(), "{stage} says what was expected");
    }
}
