//! Sums do not depend on how often they were put down and taken up again.

use palinode_math::SecondMoment;

fn keys(seed: u32, n: usize) -> Vec<f32> {
    (0..n).map(|i| ((i as u32).wrapping_mul(2_654_435_761).wrapping_add(seed) >> 8) as f32 / 1e7 - 0.8).collect()
}

#[test]
fn a_sum_taken_up_again_is_the_same() {
    let f = 128;
    let (mut whole, mut first) = (SecondMoment::new(f), SecondMoment::new(f));
    for seed in 0..7 {
        whole.add(&keys(seed, 57 * f)).unwrap();
    }
    for seed in 0..3 {
        first.add(&keys(seed, 57 * f)).unwrap();
    }
    let mut second = SecondMoment::from_sum(&first.sum(), f, first.count()).unwrap();
    for seed in 3..7 {
        second.add(&keys(seed, 57 * f)).unwrap();
    }
    assert_eq!(whole.count(), second.count());
    let off = whole.sum().iter().zip(second.sum()).filter(|(a, b)| a.to_bits() != b.to_bits()).count();
    assert_eq!(off, 0);
}
