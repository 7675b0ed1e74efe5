//! `palinode validate`

use clap::Args as ClapArgs;

use crate::failure::Failure;
use crate::input::PipelineArgs;
use crate::terminal::{Style, format, print};

/// Check a pipeline without running it
///
/// Reads the file, fills in defaults and variables, multiplies out the matrix, and checks every name, type, connection and
/// file that can be checked before a stage runs. All mistakes are shown at once.
#[derive(ClapArgs)]
#[command(after_help = "\
Examples:
  palinode validate pipeline.yaml
  palinode validate pipeline.yaml --set vars.layers=[5]")]
pub struct Args {
    #[command(flatten)]
    pipeline: PipelineArgs,
}

/// Says that a pipeline is sound, or what is wrong with it.
pub fn run(args: &Args) -> Result<(), Failure> {
    let pipeline = args.pipeline.load()?;
    let mut stages: Vec<&str> = pipeline.instances.iter().map(|instance| instance.stage.as_str()).collect();
    stages.sort_unstable();
    stages.dedup();
    let (stages, instances) = (stages.len(), pipeline.instances.len());
    let cells = if instances > stages {
        format!(", {instances} with the matrix ({})", pipeline.axes.join(" × "))
    } else {
        String::new()
    };
    let count = format::count(stages, "stage");
    let mark = Style::stdout().green("✓");
    print(&format!("{mark} {}: {count}{cells}; no mistakes found\n", args.pipeline.path.display()))
}
