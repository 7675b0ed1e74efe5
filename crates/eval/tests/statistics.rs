//! Our statistics beside those of scipy, on numbers that `scripts/make_statistics_fixtures.py` recorded.

use palinode_eval::{holm, mcnemar, mean_and_deviation, sign_flip, student, wilson};
use serde_json::Value;

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect()
}

fn near(found: f64, expect: &Value, tolerance: f64) {
    let expect = expect.as_f64().unwrap();
    assert!((found - expect).abs() <= tolerance * expect.abs().max(1.0), "{found}, and scipy says {expect}");
}

#[test]
fn scipy_says_the_same() {
    let all: Value = serde_json::from_str(include_str!("fixtures/statistics.json")).unwrap();
    let cases = |name: &str| all[name].as_array().unwrap().clone();
    let ends = |found: [f64; 2], case: &Value| (0..2).for_each(|end| near(found[end], &case["interval"][end], 1e-9));
    for case in cases("student") {
        let values = numbers(&case["values"]);
        let (mean, deviation) = mean_and_deviation(&values).unwrap();
        near(mean, &case["mean"], 1e-12);
        near(deviation.unwrap(), &case["deviation"], 1e-12);
        ends(student(&values).unwrap(), &case);
    }
    for case in cases("wilson") {
        let (good, n) = (case["good"].as_f64().unwrap(), case["n"].as_u64().unwrap() as usize);
        ends(wilson(good / n as f64, n).unwrap(), &case);
    }
    for case in cases("mcnemar") {
        let count = |name: &str| case[name].as_u64().unwrap() as usize;
        near(mcnemar(count("more"), count("fewer")), &case["p"], 1e-9);
    }
    for case in cases("sign_flip") {
        near(sign_flip(&numbers(&case["differences"]), 1), &case["p"], 1e-12);
    }
    for case in cases("holm") {
        let adjusted = holm(&numbers(&case["ps"]));
        assert_eq!(adjusted.len(), case["adjusted"].as_array().unwrap().len());
        adjusted.iter().zip(case["adjusted"].as_array().unwrap()).for_each(|(p, expect)| near(*p, expect, 1e-12));
    }
    let counts = ["student", "wilson", "mcnemar", "sign_flip", "holm"].map(|name| cases(name).len());
    assert_eq!(counts, [5, 5, 6, 5, 3]);
}
