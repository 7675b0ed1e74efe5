//! Keys: what counts, what does not, and that they stay what they are.

use palinode_engine::{Artifact, Digest, Encoder, FileRef, Fingerprint};
use proptest::prelude::*;
use serde_json::{Value, json};

fn fingerprint() -> Fingerprint {
    let params = json!({ "lambda": 20000.0, "layers": [13, 14], "name": "é", "nested": { "on": true, "none": null }, "batch": 4 });
    let mut fingerprint = Fingerprint::new("solve", 2, &params, &["batch"]);
    fingerprint.inputs.insert("model".to_owned(), Digest::of(b"model"));
    fingerprint.files.insert("weights".to_owned(), Digest::of(b"weights"));
    fingerprint
}

/// A change here makes every store in the world useless: raise `SCHEMA` and say so in the changelog.
type Change = fn(&mut Fingerprint);

#[test]
fn keys_stay_what_they_are() {
    let artifact = Artifact::new("model", json!({ "layers": 12 })).with_file("weights", FileRef::of(b"weights"));
    insta::with_settings!({ omit_expression => true, prepend_module_to_snapshot => false }, {
        insta::assert_snapshot!("keys", format!("action {}\nartifact {}\n", fingerprint().key(), artifact.digest()));
    });
}

#[test]
fn everything_counts() {
    let base = fingerprint();
    let changes: [(&str, Change); 9] = [
        ("stage", |it| it.stage.push('s')),
        ("version", |it| it.version += 1),
        ("value", |it| *it.params.get_mut("lambda").unwrap() = json!(20000.1)),
        ("order of a list", |it| *it.params.get_mut("layers").unwrap() = json!([14, 13])),
        ("null is not absent", |it| drop(it.params.remove("nested.none"))),
        ("input", |it| *it.inputs.get_mut("model").unwrap() = Digest::of(b"other")),
        ("port", |it| {
            it.inputs.insert("other".to_owned(), Digest::of(b"model"));
        }),
        ("file", |it| *it.files.get_mut("weights").unwrap() = Digest::of(b"other")),
        ("environment", |it| drop(it.environment.insert("device".to_owned(), "cpu".to_owned()))),
    ];
    for (what, change) in changes {
        let mut changed = base.clone();
        change(&mut changed);
        assert_ne!(changed.key(), base.key(), "{what}");
    }
}

#[test]
fn published_files_do_not_count() {
    let artifact = Artifact::new("a", Value::Null);
    assert_eq!(artifact.clone().with_published("out/x", FileRef::of(b"x")).digest(), artifact.digest());
}

fn digest(value: &Value) -> Digest {
    Encoder::new("test").value(value).finish()
}

#[test]
fn numbers() {
    for (a, b, same) in [
        (json!(0.0), json!(-0.0), true),
        (json!(1u64), json!(1i64), true),
        (json!(1), json!(1.0), false),
        (json!(u64::MAX), json!(-1), false),
        (json!("1"), json!(1), false),
        (json!([[], []]), json!([[[]]]), false),
        (json!({ "a": 1, "b": 2 }), json!({ "b": 2, "a": 1 }), true),
        (json!(["ab", "c"]), json!(["a", "bc"]), false),
        (Value::Null, json!(false), false),
    ] {
        assert_eq!(digest(&a) == digest(&b), same, "{a} and {b}");
    }
}

fn values() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-1e300f64..1e300).prop_map(Value::from),
        ".{0,4}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::hash_map(".{0,2}", inner, 0..4).prop_map(|map| map.into_iter().collect()),
        ]
    })
}

proptest! {
    #[test]
    fn different_values_have_different_encodings(a in values(), b in values()) {
        prop_assert_eq!(a == b, digest(&a) == digest(&b));
    }

    #[test]
    fn a_value_survives_being_written(a in values()) {
        let text = serde_json::to_string(&a).unwrap();
        prop_assert_eq!(digest(&serde_json::from_str(&text).unwrap()), digest(&a));
    }
}
