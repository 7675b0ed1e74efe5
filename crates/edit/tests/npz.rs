//! Second moments as npz: what numpy writes is read, what is written reads back, and what is hostile is refused in words.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use palinode_edit::{EditError, MomentFile, Origin, Precision, write_moment};
use palinode_math::SecondMoment;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

/// Σ k kᵀ of the fixtures, as `scripts/make_npz_fixtures.py` prints it.
const SUM: [[f64; 4]; 4] =
    [[281.0, -36.0, 56.0, 30.0], [-36.0, 228.0, 1.0, -18.0], [56.0, 1.0, 247.0, 76.0], [30.0, -18.0, 76.0, 332.0]];

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/numpy").join(name)
}

#[test]
fn what_numpy_writes_is_read() {
    for (name, dtype) in [("stored.npz", "<f4"), ("deflated.npz", "<f4"), ("half-by-columns.npz", "<f2")] {
        let file = MomentFile::open(&fixture(name)).unwrap();
        assert_eq!((file.size(), file.count(), file.samples(), file.dtype()), (4, 40, Some(3), dtype), "{name}");
        let moment = file.read(4).unwrap();
        assert_eq!(moment.sum(), SUM.concat(), "{name}");
        // The file holds the sum; the moment is the mean.
        assert_eq!(moment.mean()[(0, 0)], SUM[0][0] / 40.0, "{name}");
    }
}

#[test]
fn what_is_written_reads_back() {
    let mut moment = SecondMoment::new(5);
    let keys: Vec<f32> = (0..35).map(|i| ((i * 37 % 19) as f32 - 9.0) / 7.0).collect();
    moment.add(&keys).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("moment.npz");
    for (precision, samples) in [(Precision::Double, Some(2)), (Precision::Single, None)] {
        let origin = samples.map(|_| Origin { model: "0123456789abcdef".into(), layer: 17 });
        write_moment(&moment, samples, origin.as_ref(), precision, &path).unwrap();
        let file = MomentFile::open(&path).unwrap();
        assert_eq!(file.origin(), origin.as_ref());
        assert_eq!((file.count(), file.samples()), (7, samples));
        let rounded = |value: f64| if precision == Precision::Single { f64::from(value as f32) } else { value };
        let expected: Vec<f64> = moment.sum().into_iter().map(rounded).collect();
        assert_eq!(file.read(5).unwrap().sum(), expected);
    }
}

/// An npy file: version, header as it is, numbers.
fn npy(version: u8, header: &str, numbers: &[u8]) -> Vec<u8> {
    let mut bytes = [b"\x93NUMPY".as_slice(), &[version, 0]].concat();
    match version {
        1 => bytes.extend((header.len() as u16).to_le_bytes()),
        _ => bytes.extend((header.len() as u32).to_le_bytes()),
    }
    [bytes, header.as_bytes().to_vec(), numbers.to_vec()].concat()
}

fn array(descr: &str, shape: &str, numbers: &[u8]) -> Vec<u8> {
    npy(1, &format!("{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}\n"), numbers)
}

fn sum(rows: &[[f64; 2]]) -> Vec<u8> {
    let numbers: Vec<u8> = rows.iter().flatten().flat_map(|v| v.to_le_bytes()).collect();
    array("'<f8'", &format!("({}, 2)", rows.len()), &numbers)
}

fn count(of: i64) -> Vec<u8> {
    array("'<i8'", "()", &of.to_le_bytes())
}

const GOOD: [[f64; 2]; 2] = [[2.0, 1.0], [1.0, 3.0]];

/// An archive of these entries.
fn archive(path: &Path, entries: &[(&str, Vec<u8>)]) {
    let mut archive = ZipWriter::new(File::create(path).unwrap());
    let packed = SimpleFileOptions::default().compression_method(CompressionMethod::Deflated);
    for (name, bytes) in entries {
        archive.start_file(format!("{name}.npy"), packed).unwrap();
        archive.write_all(bytes).unwrap();
    }
    archive.finish().unwrap();
}

/// What opening it for keys of size 2, and reading it, fails with.
fn told(path: &Path) -> String {
    match MomentFile::open(path).and_then(|file| file.read(2)) {
        Ok(moment) => format!("no mistake was found: {:?}", moment.sum()),
        Err(EditError::MomentFile { path: named, message }) => {
            assert_eq!(named, path);
            message
        }
        Err(other) => other.to_string().replace(&path.display().to_string(), "FILE"),
    }
}

#[test]
fn hostile_files() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("moment.npz");
    let mut text = String::new();
    let mut say = |what: &str, path: &Path| {
        let told = told(path);
        assert!(!told.contains("no mistake"), "{what}: {told}");
        text += &format!("{what}\n  {told}\n");
    };

    say("not there", &path);
    fs::write(&path, "hello").unwrap();
    say("not an archive", &path);
    fs::write(&path, []).unwrap();
    say("nothing in it", &path);
    let whole = fs::read(fixture("stored.npz")).unwrap();
    fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    say("an archive cut off", &path);
    let mut damaged = whole.clone();
    // A bit of the sum, the longest entry but for its end.
    let at = damaged.windows(9).position(|bytes| bytes == b"mom2.mom2").unwrap() + 9 + 200;
    damaged[at] ^= 1;
    fs::write(&path, &damaged).unwrap();
    say("a bit flipped, and keys of another size", &path);

    let sums: Vec<(&str, Vec<u8>)> = vec![
        ("not square", array("'<f8'", "(2, 3)", &[0; 48])),
        ("a vector", array("'<f8'", "(4,)", &[0; 32])),
        ("of nothing", array("'<f8'", "(0, 0)", &[])),
        ("keys of another size", array("'<f8'", "(3, 3)", &[0; 72])),
        ("whole numbers", array("'<i8'", "(2, 2)", &[0; 32])),
        ("complex numbers", array("'<c8'", "(2, 2)", &[0; 32])),
        ("a huge shape", array("'<f8'", "(99999999999, 99999999999)", &[0; 32])),
        ("a shape beyond 64 bits", array("'<f8'", "(99999999999999999999, 99999999999999999999)", &[0; 32])),
        ("a shape below 0", array("'<f8'", "(-2, -2)", &[0; 32])),
        ("pickled objects", array("'|O'", "(2, 2)", b"\x80\x04cos\nsystem\n(S'true'\ntR.")),
        ("a record that holds floats", array("[('f', '<f8')]", "(2, 2)", &[0; 32])),
        ("a header that nests", array(&"[".repeat(300), "(2, 2)", &[0; 32])),
        ("a header that nests deeply", array(&"[".repeat(60_000), "(2, 2)", &[0; 32])),
        ("a header that is not one", npy(1, "import os", &[0; 32])),
        ("a header longer than the file", [b"\x93NUMPY\x02\x00".as_slice(), &[0xff; 4], b"{}"].concat()),
        ("a version that is not known", npy(9, "{}", &[0; 32])),
        ("no npy file", b"hello, this is text".to_vec()),
        ("a few bytes", b"\x93NUM".to_vec()),
        ("cut off", array("'<f8'", "(2, 2)", &[0; 20])),
        ("more numbers than its shape", array("'<f8'", "(2, 2)", &[0; 40])),
        ("not symmetric", sum(&[[2.0, 1.0], [-1.0, 3.0]])),
        ("a negative diagonal", sum(&[[2.0, 0.0], [0.0, -3.0]])),
        ("an entry that its diagonal does not allow", sum(&[[2.0, 9.0], [9.0, 3.0]])),
        ("not a number", sum(&[[f64::NAN, 0.0], [0.0, 3.0]])),
    ];
    for (what, sum) in sums {
        archive(&path, &[("mom2.mom2", sum), ("mom2.count", count(7))]);
        say(&format!("a sum: {what}"), &path);
    }
    let counts: Vec<(&str, Vec<u8>)> = vec![
        ("none", count(0)),
        ("below 0", count(-7)),
        ("a fraction", array("'<f8'", "()", &7.5f64.to_le_bytes())),
        ("not a number", array("'<f8'", "()", &f64::NAN.to_le_bytes())),
        ("text", array("'<U1'", "()", &[0; 4])),
        ("several", array("'<i8'", "(2,)", &[1; 16])),
        ("of no numbers", array("'<i8'", "(0,)", &[])),
    ];
    for (what, count) in counts {
        archive(&path, &[("mom2.mom2", sum(&GOOD)), ("mom2.count", count)]);
        say(&format!("a count: {what}"), &path);
    }
    archive(&path, &[("mom2.mom2", sum(&GOOD))]);
    say("no count", &path);
    archive(&path, &[("mom2.count", count(7))]);
    say("no sum", &path);
    archive(&path, &[]);
    say("no entries", &path);
    insta::assert_snapshot!(text);
}
