//! Second moments from elsewhere, through the program: those of another layer, another model or another scale end a run and an edit, with
//! the figure; what cannot be judged is said.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use tempfile::TempDir;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipArchive, ZipWriter};

/// The entries of an npz file.
type Entries = BTreeMap<String, Vec<u8>>;

const SUM: &str = "mom2.mom2.npy";
const COUNT: &str = "mom2.count.npy";

struct Place {
    folder: TempDir,
    demo: PathBuf,
}

impl Place {
    /// With the second moments of three layers of the demo model, and of the first layer of another model of the same width.
    fn new() -> Self {
        let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/demo-model").canonicalize().unwrap();
        let place = Self { folder: TempDir::new().unwrap(), demo };
        let (own, other) = (place.demo.join("model"), place.path("other"));
        std::fs::create_dir(&other).unwrap();
        for name in ["config.json", "tokenizer.json"] {
            std::fs::copy(own.join(name), other.join(name)).unwrap();
        }
        let mut weights = std::fs::read(own.join("model.safetensors")).unwrap();
        turn_round(&mut weights, "h.0.mlp.c_fc.weight");
        std::fs::write(other.join("model.safetensors"), weights).unwrap();
        place.measure(&own, "[0, 1, 2]", "own");
        place.measure(&other, "[0]", "foreign");
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn measure(&self, model: &Path, layers: &str, folder: &str) {
        let yaml = format!(
            "name: measure\nstages:\n  model: {{ uses: load_model, with: {{ path: {} }} }}\n  moments: {{ uses: covariance, inputs: {{ model: \
             model }}, with: {{ corpus: {}/corpus.txt, layers: {layers}, samples: 1200 }} }}\n  out: {{ uses: export_moments, inputs: {{ \
             model: model, moments: moments }}, with: {{ path: {folder} }} }}\n",
            model.display(),
            self.demo.display()
        );
        let (code, said) = self.run(&yaml);
        assert_eq!(code, 0, "{said}");
        assert!(said.contains("documents that were left out, expected near 1: layer 0"), "{said}");
    }

    /// The exported file of a layer.
    fn exported(&self, folder: &str, layer: usize) -> Entries {
        let name = format!("{folder}/transformer.h.{layer}.mlp.c_proj_float32_mom2_1200.npz");
        let mut archive = ZipArchive::new(File::open(self.path(&name)).unwrap()).unwrap();
        let mut entries = Entries::new();
        for at in 0..archive.len() {
            let mut entry = archive.by_index(at).unwrap();
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).unwrap();
            let name = entry.name().unwrap().into_owned();
            entries.insert(name, bytes);
        }
        entries
    }

    fn write(&self, name: &str, entries: &Entries) {
        let mut archive = ZipWriter::new(File::create(self.path(name)).unwrap());
        let plain = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
        for (name, bytes) in entries {
            archive.start_file(name, plain).unwrap();
            archive.write_all(bytes).unwrap();
        }
        archive.finish().unwrap();
    }

    fn palinode(&self, args: &[&str]) -> (i32, String) {
        let mut program = Command::new(env!("CARGO_BIN_EXE_palinode"));
        program.env_remove("PALINODE_STORE").env("NO_COLOR", "1").current_dir(&self.folder);
        let output = program.args(args).output().unwrap();
        let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
        (output.status.code().unwrap_or(-1), said.split_whitespace().collect::<Vec<_>>().join(" "))
    }

    fn run(&self, yaml: &str) -> (i32, String) {
        std::fs::write(self.path("p.yaml"), yaml).unwrap();
        self.palinode(&["run", "p.yaml"])
    }

    /// What a pipeline says that loads a file for a layer of the demo model.
    fn load(&self, layer: usize, file: &str, more: &str) -> (i32, String) {
        self.run(&format!(
            "name: load\nstages:\n  model: {{ uses: load_model, with: {{ path: {}/model }} }}\n  moments: {{ uses: load_moments, inputs: {{ \
             model: model }}, with: {{ files: {{ {layer}: {file} }}{more} }} }}\n",
            self.demo.display()
        ))
    }

    /// What an edit of the demo model says with a file.
    fn edit(&self, layer: usize, file: &str) -> (i32, String) {
        let (model, layer) = (self.demo.join("model").display().to_string(), layer.to_string());
        let fact = ["--subject", "Chile", "--prompt", "The official language of {} is", "--target", "Thai"];
        self.palinode(&[&["edit", &model, "--layer", &layer, "--moments", file], &fact[..]].concat())
    }
}

/// One place for all tests, one at a time: they share a store and a pipeline file.
fn place() -> MutexGuard<'static, Place> {
    static PLACE: OnceLock<Mutex<Place>> = OnceLock::new();
    PLACE.get_or_init(|| Mutex::new(Place::new())).lock().unwrap_or_else(PoisonError::into_inner)
}

/// Reverses the numbers of a tensor in f32.
fn turn_round(weights: &mut [u8], tensor: &str) {
    let length = u64::from_le_bytes(weights[..8].try_into().unwrap()) as usize;
    let header: serde_json::Value = serde_json::from_slice(&weights[8..8 + length]).unwrap();
    let (_, info) = header.as_object().unwrap().iter().find(|(name, _)| name.ends_with(tensor)).unwrap();
    let at = |end: usize| 8 + length + info["data_offsets"][end].as_u64().unwrap() as usize;
    let mut values: Vec<[u8; 4]> = weights[at(0)..at(1)].chunks_exact(4).map(|b| b.try_into().unwrap()).collect();
    values.reverse();
    weights[at(0)..at(1)].copy_from_slice(values.as_flattened());
}

/// As others publish it: without what Palinode writes beside it.
fn bare(mut entries: Entries) -> Entries {
    entries.retain(|name, _| !name.starts_with("palinode."));
    entries
}

/// Another number of tokens under the same sum.
fn counted(mut entries: Entries, count: i64) -> Entries {
    let bytes = entries.get_mut(COUNT).unwrap();
    let at = bytes.len() - 8;
    bytes[at..].copy_from_slice(&count.to_le_bytes());
    entries
}

/// Another sum, whose entry at (row, column) is `value`.
fn summed(mut entries: Entries, value: impl Fn(usize, usize) -> f32) -> Entries {
    let bytes = entries.get_mut(SUM).unwrap();
    let begin = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    let size = ((bytes.len() - begin) / 4).isqrt();
    for (i, number) in bytes[begin..].chunks_exact_mut(4).enumerate() {
        number.copy_from_slice(&value(i / size, i % size).to_le_bytes());
    }
    entries
}

#[test]
fn foreign_second_moments_end_a_run_and_an_edit() {
    let place = place();
    place.write("zero.npz", &bare(place.exported("own", 0)));
    place.write("two.npz", &bare(place.exported("own", 2)));
    place.write("foreign.npz", &bare(place.exported("foreign", 0)));
    place.write("sum.npz", &counted(bare(place.exported("own", 0)), 1));
    for (layer, file, words) in [
        (0, "two.npz", "far above 1: the file is of another layer, another model or another scale"),
        (0, "foreign.npz", "far above 1"),
        (0, "sum.npz", "far below 1: the file is of another scale, as a sum in the place of a mean would be"),
    ] {
        for (code, said) in [place.load(layer, file, ""), place.edit(layer, file)] {
            assert_eq!(code, 4, "{file}: {said}");
            assert!(said.contains("layer 0: the mean of kᵀC⁻¹k/f on"), "{file}: {said}");
            assert!(said.contains(words) && said.contains("`accept_moments: true`"), "{file}: {said}");
        }
        let (code, said) = place.load(layer, file, ", accept_moments: true");
        assert!(code == 0 && said.contains("warning") && said.contains(words), "{file}: {said}");
    }
    // The right one.
    for (code, said) in [place.load(0, "zero.npz", ""), place.edit(0, "zero.npz")] {
        assert!(code == 0 && !said.contains("warning: layer"), "{said}");
    }
}

#[test]
fn what_a_file_says_of_itself_is_compared_before_anything_runs() {
    let place = place();
    place.write("one.npz", &place.exported("own", 1));
    place.write("transformer.h.2.mlp.c_proj_float32_mom2_1200.npz", &bare(place.exported("own", 2)));
    for (file, words) in [
        ("one.npz", "it is of layer 1, as it says itself, not of layer 0"),
        ("transformer.h.2.mlp.c_proj_float32_mom2_1200.npz", "by its name it is of layer 2, not of layer 0"),
    ] {
        for (code, said) in [place.load(0, file, ""), place.edit(0, file)] {
            assert!(code == 4 && said.contains(words), "{file}: {code} {said}");
        }
    }
    place.write("theirs.npz", &place.exported("foreign", 0));
    let (code, said) = place.load(0, "theirs.npz", "");
    assert!(code == 4 && said.contains("was measured on another model"), "{code} {said}");
    // Our own file, whose sum was divided since.
    place.write("changed.npz", &counted(place.exported("own", 0), 1));
    let (code, said) = place.edit(0, "changed.npz");
    assert!(code == 4 && said.contains("was changed since it was measured: the trace of C is"), "{code} {said}");
    assert_eq!(place.load(1, "one.npz", "").0, 0);
}

#[test]
fn what_cannot_be_judged_is_said() {
    let place = place();
    let own = || bare(place.exported("own", 0));
    place.write("identity.npz", &counted(summed(own(), |i, j| if i == j { 9000.0 } else { 0.0 }), 9000));
    let (code, said) = place.load(0, "identity.npz", "");
    assert!(code == 0 && said.contains("layer 0: the second moment is the identity"), "{code} {said}");
    place.write("singular.npz", &counted(summed(own(), |_, _| 0.25), 9000));
    let (code, said) = place.load(0, "singular.npz", "");
    assert!(code == 0 && said.contains("layer 0: the second moment is singular"), "{code} {said}");
    // An edit with it is not made.
    let (code, said) = place.edit(0, "singular.npz");
    assert!(code == 5 && said.contains("positive definite"), "{code} {said}");
}
