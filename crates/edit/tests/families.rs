//! Keys and targets of every family against numbers that plain torch code computed on the same small models
//! (scripts/make_family_fixtures.py), with the tolerances of the golden folder.

mod family;

use family::{families, losses, request};
use palinode_edit::{Prompt, Site, Tap, optimise, probe, prompts};
use palinode_golden::relative;

#[test]
fn keys_in_every_layer() {
    for family in families() {
        let weighted = family.templates.weighted();
        let config = family.decoder.config();
        let request = request(&family.numbers.json("edit.json").field("request"));
        let row = |template: &str| prompts::prompt(&family.text, config, &request, template).unwrap();
        let rows: Vec<Prompt> = weighted.iter().map(|(template, _)| row(template)).collect();
        let taps: Vec<Tap> = (0..config.layers).map(|layer| Tap { layer, site: Site::Key }).collect();
        let expected = family.numbers.tensors("edit.safetensors");
        let mut worst = 0f64;
        for (layer, keys) in probe(&family.decoder, &rows, &taps, 4096).unwrap().iter().enumerate() {
            let f = config.feed_forward;
            let mean = |i: usize| weighted.iter().enumerate().map(|(t, (_, w))| w * f64::from(keys[t * f + i])).sum();
            let key: Vec<f64> = (0..f).map(mean).collect();
            worst = worst.max(relative(&key, &expected.values(&format!("layer{layer}.key"))));
        }
        println!("{}: keys {worst:.1e}", family.name);
        assert!(worst < 1e-5, "{}: {worst}", family.name);
    }
}

#[test]
fn a_target_step_by_step() {
    for family in families() {
        let facts = family.numbers.json("edit.json");
        let request = [request(&facts.field("request"))];
        assert_eq!(
            family.text.encode_target(&request[0].target_new).unwrap(),
            facts.field("target").ids(),
            "{}",
            family.name
        );
        let found =
            optimise(&family.decoder, &family.text, &request, &family.templates, &family.settings, |_| {}).unwrap();
        let (early, late) = losses(found[0].trace.iter().map(|step| step.loss), &facts.field("losses"));
        let expected = family.numbers.tensors("edit.safetensors");
        let initial = relative(&found[0].initial, &expected.values("initial"));
        let z = relative(&found[0].value(), &expected.values("z"));
        println!("{}: losses {early:.1e} {late:.1e}, start {initial:.1e}, z {z:.1e}", family.name);
        assert!(early < 1e-4 && late < 1e-3 && initial < 1e-5 && z < 1e-3, "{}: {early} {late} {z}", family.name);
    }
}
