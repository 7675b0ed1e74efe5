//! A thousand cached stages cost next to nothing.

mod common;

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::Bench;
use palinode_engine::{Observer, Outcome, RunOptions, Silent, plan, run};

#[test]
fn a_thousand_cached_stages() {
    let bench = Bench::new();
    let mut yaml = "name: wide\nstages:\n".to_owned();
    for index in 0..500 {
        let _ = writeln!(yaml, "  t{index}: {{uses: text, with: {{value: 'word {}'}}}}", index % 10);
        let _ = writeln!(
            yaml,
            "  j{index}: {{uses: join, inputs: {{text: t{index}}}, with: {{between: '{}'}}}}",
            index % 10
        );
    }
    let silent: Arc<dyn Observer> = Arc::new(Silent);
    run(&bench.load(&yaml, &[]).unwrap(), &bench.store(), &RunOptions::default(), &silent).unwrap();
    let mut times = Vec::new();
    for _ in 0..3 {
        let begun = Instant::now();
        let pipeline = bench.load(&yaml, &[]).unwrap();
        let loaded = begun.elapsed();
        let store = bench.store();
        let opened = begun.elapsed();
        plan(&pipeline, &store, silent.as_ref()).unwrap();
        let planned = begun.elapsed();
        let report = run(&pipeline, &store, &RunOptions::default(), &silent).unwrap();
        drop(store);
        assert_eq!(report.count(|outcome| *outcome == Outcome::Cached), 1000);
        times.push((begun.elapsed(), loaded, opened, planned));
    }
    let best = times.iter().min().unwrap();
    println!("all, loaded, opened, planned: {best:?}");
    // Ten times what an idle machine takes: this guards against a slip from linear to quadratic, not against a busy machine.
    assert!(best.0 < Duration::from_secs(2), "{best:?}");
}
