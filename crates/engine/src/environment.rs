//! What can change the last digits of a result, for pipelines that ask for it to count.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use palinode_fingerprint::FileRef;
use palinode_pipeline::Pipeline;

/// What keys of a pipeline's stages cover besides: nothing, or under `numerics: strict` the device and this program to the
/// byte, since two builds of one version may round differently.
pub fn of(pipeline: &Pipeline) -> BTreeMap<String, String> {
    let Some(mut environment) = pipeline.environment.clone() else { return BTreeMap::new() };
    environment.insert("build".to_owned(), build().to_owned());
    environment
}

/// This build: the version, and a digest of the program. The program is read for it, once.
pub fn build() -> &'static str {
    static BUILD: OnceLock<String> = OnceLock::new();
    BUILD.get_or_init(|| {
        let exact = std::env::current_exe().ok().and_then(|path| FileRef::of_file(&path).ok());
        let exact = exact.map_or_else(|| "unknown".to_owned(), |file| file.digest.short());
        format!("{} ({exact})", env!("CARGO_PKG_VERSION"))
    })
}
