//! Times one case of editing, for `benches/compare.py`, which runs the reference on the same inputs in turn.
//!
//! ```text
//! cargo bench --workspace --bench measure -- solve objective=memit f=6400 batch=32 cached=1
//! ```
//!
//! Prints one JSON object: seconds of wall clock and of CPU time of what the case measures (loading is not part of it),
//! and the process's peak memory in MiB.

// What is measured allocates as the program does.
#[path = "../../../cli/src/allocator.rs"]
mod allocator;
mod cases;
mod meter;
mod settings;

use settings::Settings;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    allocator::keep_pages();
    // Cargo adds `--bench`.
    let mut words = std::env::args().skip(1).filter(|word| word != "--bench");
    let Some(case) = words.next() else {
        // `cargo bench` runs every bench: without a case there is nothing to measure.
        println!(
            "name a case: targets, moments, scores, texts, solve, round, edit, apart, gemm, cholesky (see benches/README.md)"
        );
        return Ok(());
    };
    let settings = Settings::parse(words)?;
    let measured = match case.as_str() {
        "targets" => cases::targets(&settings)?,
        "moments" => cases::moments(&settings)?,
        "scores" => cases::scores(&settings)?,
        "texts" => cases::texts(&settings)?,
        "solve" => cases::solve(&settings)?,
        "round" => cases::round(&settings)?,
        "edit" => cases::edit(&settings)?,
        "apart" => cases::apart(&settings)?,
        "gemm" => cases::gemm(&settings)?,
        "cholesky" => cases::cholesky(&settings)?,
        other => return Err(format!("there is no case {other:?}").into()),
    };
    println!("{measured}");
    Ok(())
}
