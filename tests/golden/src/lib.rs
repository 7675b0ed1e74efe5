//! Reads folders of golden numbers, and accepts nothing less than all of them.
//!
//! Everything here panics where a comparison could otherwise pass without comparing: a folder or a file that is not there, a tensor or
//! a field that a file lacks, a number that is not finite. Each message names the path.

mod families;

use std::fmt::Display;
use std::path::{Path, PathBuf};

use safetensors::{Dtype, SafeTensors};
use serde_json::Value;

pub use families::{FAMILIES, family};

/// The environment variable that names the folder of golden numbers.
pub const VARIABLE: &str = "PALINODE_GOLDEN";

/// A folder with golden numbers.
#[derive(Debug, Clone)]
pub struct Folder(PathBuf);

impl Folder {
    /// The folder that `PALINODE_GOLDEN` names; a relative path starts at the repository's root, since cargo runs each test program
    /// in the folder of its package.
    pub fn given() -> Self {
        let Some(path) = std::env::var_os(VARIABLE).filter(|path| !path.is_empty()) else {
            panic!("{VARIABLE} is not set: set it to the folder of golden numbers (see tests/golden/README.md)");
        };
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("two folders above");
        Self::at(root.join(path))
    }

    /// The folder at a path.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        assert!(path.is_dir(), "golden numbers: there is no folder {}", path.display());
        Self(path)
    }

    /// A folder inside this one.
    pub fn folder(&self, name: &str) -> Self {
        Self::at(self.0.join(name))
    }

    /// Where the folder is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The path of a file inside, which has to exist.
    pub fn file(&self, name: &str) -> PathBuf {
        let path = self.0.join(name);
        assert!(path.is_file(), "golden numbers: there is no file {}", path.display());
        path
    }

    /// A JSON file inside.
    pub fn json(&self, name: &str) -> Json {
        let path = self.file(name);
        let value = serde_json::from_slice(&read(&path)).unwrap_or_else(|error| fail(&path, error));
        Json { path, value }
    }

    /// A safetensors file inside.
    pub fn tensors(&self, name: &str) -> Tensors {
        let path = self.file(name);
        let bytes = read(&path);
        if let Err(error) = SafeTensors::deserialize(&bytes) {
            fail(&path, error);
        }
        Tensors { path, bytes }
    }
}

fn read(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap_or_else(|error| fail(path, error))
}

fn fail(path: &Path, what: impl Display) -> ! {
    panic!("golden numbers: {}: {what}", path.display())
}

/// A JSON value and the file that it comes from.
#[derive(Debug, Clone)]
pub struct Json {
    path: PathBuf,
    value: Value,
}

impl Json {
    fn wrong(&self, what: impl Display) -> ! {
        fail(&self.path, what)
    }

    /// A field, which has to exist.
    pub fn field(&self, name: &str) -> Self {
        match self.value.get(name) {
            Some(value) => Self { path: self.path.clone(), value: value.clone() },
            None => self.wrong(format!("no field {name}")),
        }
    }

    /// Whether there is such a field with a value.
    pub fn has(&self, name: &str) -> bool {
        self.value.get(name).is_some_and(|value| !value.is_null())
    }

    /// The elements of a list.
    pub fn list(&self) -> Vec<Self> {
        let Some(list) = self.value.as_array() else { self.wrong(format!("{} is no list", self.value)) };
        list.iter().map(|value| Self { path: self.path.clone(), value: value.clone() }).collect()
    }

    /// The names of the fields.
    pub fn names(&self) -> Vec<String> {
        let Some(map) = self.value.as_object() else { self.wrong(format!("{} is no object", self.value)) };
        map.keys().cloned().collect()
    }

    /// A number.
    pub fn number(&self) -> f64 {
        match self.value.as_f64() {
            Some(number) if number.is_finite() => number,
            _ => self.wrong(format!("{} is no number", self.value)),
        }
    }

    /// A whole number.
    pub fn whole(&self) -> usize {
        match self.value.as_u64() {
            Some(number) => number as usize,
            None => self.wrong(format!("{} is no whole number", self.value)),
        }
    }

    /// A text.
    pub fn text(&self) -> &str {
        self.value.as_str().unwrap_or_else(|| self.wrong(format!("{} is no text", self.value)))
    }

    /// True or false.
    pub fn truth(&self) -> bool {
        self.value.as_bool().unwrap_or_else(|| self.wrong(format!("{} is neither true nor false", self.value)))
    }

    /// Whole numbers.
    pub fn wholes(&self) -> Vec<usize> {
        self.list().iter().map(Self::whole).collect()
    }

    /// Token ids.
    pub fn ids(&self) -> Vec<u32> {
        self.list().iter().map(|id| id.whole() as u32).collect()
    }

    /// Texts.
    pub fn texts(&self) -> Vec<String> {
        self.list().iter().map(|text| text.text().to_owned()).collect()
    }

    /// The value itself.
    pub fn value(&self) -> &Value {
        &self.value
    }
}

/// A safetensors file, whole in memory.
#[derive(Debug)]
pub struct Tensors {
    path: PathBuf,
    bytes: Vec<u8>,
}

impl Tensors {
    fn file(&self) -> SafeTensors<'_> {
        SafeTensors::deserialize(&self.bytes).unwrap_or_else(|error| fail(&self.path, error))
    }

    /// The names of all tensors, in order.
    pub fn names(&self) -> Vec<String> {
        let file = self.file();
        let mut names: Vec<String> = file.names().into_iter().map(str::to_owned).collect();
        names.sort();
        names
    }

    /// Whether the file has a tensor of this name.
    pub fn has(&self, name: &str) -> bool {
        self.file().tensor(name).is_ok()
    }

    /// The shape of a tensor.
    pub fn shape(&self, name: &str) -> Vec<usize> {
        let file = self.file();
        let view = file.tensor(name).unwrap_or_else(|error| fail(&self.path, format!("{name}: {error}")));
        view.shape().to_vec()
    }

    /// The bits of a tensor of bytes, the highest of each byte first.
    pub fn bits(&self, name: &str) -> Vec<bool> {
        let file = self.file();
        let view = file.tensor(name).unwrap_or_else(|error| fail(&self.path, format!("{name}: {error}")));
        if view.dtype() != Dtype::U8 {
            fail(&self.path, format!("{name} is stored as {:?}, not U8", view.dtype()));
        }
        view.data().iter().flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1 == 1)).collect()
    }

    /// The shape and the values, row by row, of a tensor of floats. All of them have to be finite: a comparison with NaN is
    /// never out of tolerance.
    pub fn floats(&self, name: &str) -> (Vec<usize>, Vec<f64>) {
        let file = self.file();
        let view = file.tensor(name).unwrap_or_else(|error| fail(&self.path, format!("{name}: {error}")));
        let values: Vec<f64> = match view.dtype() {
            Dtype::F64 => elements(view.data(), f64::from_le_bytes).collect(),
            Dtype::F32 => elements(view.data(), f32::from_le_bytes).map(f64::from).collect(),
            other => fail(&self.path, format!("{name} holds {other:?}, expected F32 or F64")),
        };
        assert!(
            values.iter().all(|value| value.is_finite()),
            "golden numbers: {}: {name} has values that are not finite",
            self.path.display()
        );
        (view.shape().to_vec(), values)
    }

    /// The values of a tensor of floats.
    pub fn values(&self, name: &str) -> Vec<f64> {
        self.floats(name).1
    }

    /// The same, rounded to f32.
    pub fn singles(&self, name: &str) -> Vec<f32> {
        self.values(name).into_iter().map(|value| value as f32).collect()
    }

    /// A tensor of token ids.
    pub fn ids(&self, name: &str) -> Vec<u32> {
        let file = self.file();
        let view = file.tensor(name).unwrap_or_else(|error| fail(&self.path, format!("{name}: {error}")));
        match view.dtype() {
            Dtype::I64 => elements(view.data(), i64::from_le_bytes).map(|id| id as u32).collect(),
            Dtype::I32 | Dtype::U32 => elements(view.data(), u32::from_le_bytes).collect(),
            other => fail(&self.path, format!("{name} holds {other:?}, expected whole numbers")),
        }
    }
}

fn elements<const N: usize, T>(data: &[u8], read: impl Fn([u8; N]) -> T) -> impl Iterator<Item = T> {
    data.as_chunks::<N>().0.iter().map(move |bytes| read(*bytes))
}

/// ‖ours − theirs‖ / ‖theirs‖ in the Frobenius norm, in f64. What is not finite on either side panics.
pub fn relative<A: Copy + Into<f64>, B: Copy + Into<f64>>(ours: &[A], theirs: &[B]) -> f64 {
    assert_eq!(ours.len(), theirs.len(), "golden numbers: as many values as there are to compare with");
    let (mut difference, mut norm) = (0.0, 0.0);
    for (&a, &b) in ours.iter().zip(theirs) {
        let (a, b): (f64, f64) = (a.into(), b.into());
        difference += (a - b).powi(2);
        norm += b.powi(2);
    }
    let relative = difference.sqrt() / norm.sqrt();
    assert!(relative.is_finite(), "golden numbers: the difference is {relative}");
    relative
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::panic::catch_unwind;

    use safetensors::tensor::TensorView;

    use super::*;

    /// What a closure panics with.
    fn said<T>(what: impl FnOnce() -> T) -> String {
        let panic = catch_unwind(std::panic::AssertUnwindSafe(what)).err().expect("it has to fail");
        *panic.downcast::<String>().expect("a message")
    }

    #[test]
    fn what_is_missing_or_unreadable_is_named() {
        let dir = tempfile::TempDir::new().unwrap();
        let folder = Folder::at(dir.path());
        let there = |name: &str| dir.path().join(name).display().to_string();
        assert_eq!(said(|| folder.folder("gpt2")), format!("golden numbers: there is no folder {}", there("gpt2")));
        assert_eq!(
            said(|| folder.json("rome.json")),
            format!("golden numbers: there is no file {}", there("rome.json"))
        );

        fs::write(dir.path().join("half.json"), "[1, ").unwrap();
        assert!(said(|| folder.json("half.json")).contains(&there("half.json")));
        fs::write(dir.path().join("facts.json"), r#"{"loss": null, "steps": [1, 2], "lambda": 1e3}"#).unwrap();
        let facts = folder.json("facts.json");
        assert_eq!((facts.field("lambda").number(), facts.field("steps").wholes()), (1000.0, vec![1, 2]));
        assert!(facts.has("steps") && !facts.has("loss") && !facts.has("rho"));
        assert_eq!(said(|| facts.field("rho")), format!("golden numbers: {}: no field rho", there("facts.json")));
        assert_eq!(
            said(|| facts.field("loss").number()),
            format!("golden numbers: {}: null is no number", there("facts.json"))
        );

        fs::write(dir.path().join("half.safetensors"), [9, 0, 0]).unwrap();
        assert!(said(|| folder.tensors("half.safetensors")).contains(&there("half.safetensors")));
        let bytes: Vec<u8> = [1.0f32, f32::NAN, 2.0].iter().flat_map(|value| value.to_le_bytes()).collect();
        let views = [("good", 0..4), ("bad", 4..8)]
            .map(|(name, range)| (name, TensorView::new(Dtype::F32, vec![1], &bytes[range]).unwrap()));
        safetensors::serialize_to_file(views, None, &dir.path().join("t.safetensors")).unwrap();
        let tensors = folder.tensors("t.safetensors");
        assert_eq!(tensors.names(), ["bad", "good"]);
        assert_eq!(tensors.floats("good"), (vec![1], vec![1.0]));
        assert!(said(|| tensors.values("bad")).contains("bad has values that are not finite"));
        assert!(said(|| tensors.values("none")).contains(&there("t.safetensors")));
        assert!(said(|| tensors.ids("good")).contains("expected whole numbers"));
    }

    #[test]
    fn differences_are_numbers() {
        assert!((relative(&[1.0f32, 2.0], &[1.0, 1.0]) - 0.5f64.sqrt()).abs() < 1e-15);
        assert!(said(|| relative(&[f64::NAN], &[1.0])).contains("the difference is NaN"));
        assert!(said(|| relative(&[1.0], &[0.0])).contains("the difference is inf"));
    }
}
