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

/// This build: the version, and a digest of the program. The program is read for it, once, which takes 0.05 s.
///
/// A build id that the linker wrote (`.note.gnu.build-id`, on macOS `LC_UUID`) could be had without that, and does not name a build as well. What
/// changes the program after it was linked leaves the id as it was: `patchelf` and tools that repair a wheel, a patch by hand, a damaged copy. And
/// nothing in the file says what the id is made of: a linker that was given one (`--build-id=0x…`) writes it into every build alike.
pub fn build() -> &'static str {
    static BUILD: OnceLock<String> = OnceLock::new();
    BUILD.get_or_init(|| {
        let exact = std::env::current_exe().ok().and_then(|path| FileRef::of_file(&path).ok());
        let exact = exact.map_or_else(|| "unknown".to_owned(), |file| file.digest.short());
        format!("{} ({exact})", env!("CARGO_PKG_VERSION"))
    })
}
