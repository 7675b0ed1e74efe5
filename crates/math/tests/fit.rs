//! Whether a second moment is that of some keys: the scale, the directions, and what cannot be judged.

use palinode_math::{Fit, PartKeys, SecondMoment};

/// Keys of size 6 whose directions have different lengths, turned by `turn`.
fn keys(n: usize, turn: usize) -> Vec<f32> {
    let mut state = 3 + turn as u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..n * 6).map(|i| next() * [4.0, 2.0, 1.0, 0.3, 0.1, 0.03][(i + turn) % 6]).collect()
}

fn ratio(moment: &SecondMoment, keys: &[f32]) -> f64 {
    let Fit::Ratio(ratio) = Fit::of(moment.clone(), keys).unwrap() else { panic!("not judged") };
    ratio
}

#[test]
fn scale_and_directions_show() {
    let mut moment = SecondMoment::new(6);
    let own = keys(4000, 0);
    moment.add(&own).unwrap();
    // Exactly 1 for the keys that it was made of, and near it for others of their kind.
    assert!((ratio(&moment, &own) - 1.0).abs() < 1e-9);
    assert!((ratio(&moment, &keys(500, 0)) - 1.0).abs() < 0.2);
    assert!(ratio(&moment, &keys(500, 3)) > 30.0);
    // The sum in the place of the mean.
    let sum = SecondMoment::from_sum(&moment.sum(), 6, 1).unwrap();
    assert!((ratio(&sum, &own) * 4000.0 - 1.0).abs() < 1e-9);
}

#[test]
fn what_cannot_be_judged_is_said() {
    let mut few = SecondMoment::new(6);
    few.add(&keys(3, 0)).unwrap();
    assert_eq!(Fit::of(few.clone(), &keys(5, 0)).unwrap(), Fit::Singular);
    let identity: Vec<f64> = (0..36).map(|i| if i % 7 == 0 { 5.0 } else { 0.0 }).collect();
    let identity = SecondMoment::from_sum(&identity, 6, 5).unwrap();
    assert_eq!(Fit::of(identity.clone(), &keys(5, 0)).unwrap(), Fit::Identity);
    assert!(Fit::of(identity.clone(), &[]).is_err());
    assert!(Fit::of(identity.clone(), &[f32::NAN; 6]).is_err());
}

#[test]
fn a_document_is_judged_by_the_others() {
    let documents = [keys(40, 0), keys(7, 3), keys(300, 1)];
    let whole_keys = documents.each_ref().map(|keys| PartKeys::of(keys, std::iter::once(0..6)));
    let of = |which: &[usize]| {
        let mut moment = SecondMoment::new(6);
        for &i in which {
            moment.add(&documents[i]).unwrap();
        }
        moment
    };
    let whole = of(&[0, 1, 2]);
    for (one, others) in [(0, [1, 2]), (1, [0, 2]), (2, [0, 1])] {
        let Fit::Ratio(held_out) = Fit::held_out(whole.clone(), &[&whole_keys[one]]).unwrap() else {
            panic!("not judged")
        };
        let direct = ratio(&of(&others), &documents[one]);
        assert!((held_out / direct - 1.0).abs() < 1e-9, "{one}: {held_out} {direct}");
    }
    // Nothing is left without the only document, and nothing is said of no key.
    assert_eq!(Fit::held_out(of(&[2]), &[&whole_keys[2]]).unwrap(), Fit::Singular);
    assert_eq!(Fit::held_out(of(&[1]), &[&whole_keys[1]]).unwrap(), Fit::Singular);
    assert!(Fit::held_out(whole.clone(), &[]).is_err());
}
