//! Second moments in the files that others publish: numpy's are read, ours are read back, and hostile ones are refused.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use palinode_edit::{EditError, MomentFile, Precision, write_moment};
use palinode_math::SecondMoment;
use tempfile::TempDir;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/numpy").join(name)
}

fn read(path: &Path, f: usize) -> Result<SecondMoment, EditError> {
    MomentFile::open(path)?.read(f)
}

#[test]
fn what_numpy_wrote_is_read() {
    for name in ["plain.npz", "packed.npz"] {
        let file = MomentFile::open(&fixture(name)).unwrap();
        assert_eq!((file.size(), file.count(), file.samples(), file.dtype()), (6, 40, Some(7), "<f4"));
        let moment = file.read(6).unwrap();
        // The sum divided by the count: the trap of these files.
        assert!((moment.mean()[(0, 0)] - 34.667_71 / 40.0).abs() < 1e-6);
        assert!((moment.sum()[1] - -4.19045).abs() < 1e-5 && (moment.sum()[35] - 35.237_514).abs() < 1e-5);
    }
}

#[test]
fn what_is_written_is_read_back() {
    let folder = TempDir::new().unwrap();
    let moment = read(&fixture("plain.npz"), 6).unwrap();
    for (precision, dtype) in [(Precision::Single, "<f4"), (Precision::Double, "<f8")] {
        let path = folder.path().join(format!("{dtype}.npz"));
        write_moment(&moment, Some(7), precision, &path).unwrap();
        let file = MomentFile::open(&path).unwrap();
        assert_eq!((file.count(), file.samples(), file.dtype()), (40, Some(7), dtype));
        assert_eq!(file.read(6).unwrap().sum(), moment.sum());
    }
}

/// An array as numpy lays it out.
fn array(header: &str, data: &[u8]) -> Vec<u8> {
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.extend(data);
    bytes
}

fn header(descr: &str, shape: &str) -> String {
    format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({shape}), }}\n")
}

fn floats(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

fn count(tokens: i64) -> Vec<u8> {
    array(&header("<i8", ""), &tokens.to_le_bytes())
}

fn sum(shape: &str, values: &[f32]) -> Vec<u8> {
    array(&header("<f4", shape), &floats(values))
}

#[test]
fn mistakes_in_files() {
    const GOOD: [f32; 4] = [2.0, 1.0, 1.0, 2.0];
    let folder = TempDir::new().unwrap();
    let mut told = String::new();
    let mut check = |what: &str, entries: &[(&str, Vec<u8>)]| {
        let path = folder.path().join("m.npz");
        let mut archive = ZipWriter::new(fs::File::create(&path).unwrap());
        let plain = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
        for (name, bytes) in entries {
            archive.start_file(format!("{name}.npy"), plain).unwrap();
            archive.write_all(bytes).unwrap();
        }
        archive.finish().unwrap();
        let error = read(&path, 2).unwrap_err().to_string().replace(folder.path().to_str().unwrap(), "DIR");
        told.push_str(&format!("{what}: {error}\n"));
    };
    let counted = ("mom2.count", count(10));
    let mut with = |what: &str, bytes: Vec<u8>| check(what, &[("mom2.mom2", bytes), counted.clone()]);
    with("not an array", b"hello".to_vec());
    with("not square", sum("4,", &GOOD));
    with("another size", sum("1, 1", &[1.0]));
    with("cut off", sum("2, 2", &GOOD[..3]));
    with("goes on", sum("2, 2", &[2.0, 1.0, 1.0, 2.0, 5.0]));
    with("claims too much", sum("4611686018427387904, 4611686018427387904", &GOOD));
    with("not symmetric", sum("2, 2", &[2.0, 1.0, 0.5, 2.0]));
    with("negative", sum("2, 2", &[-2.0, 1.0, 1.0, 2.0]));
    with("not a number", sum("2, 2", &[2.0, f32::NAN, f32::NAN, 2.0]));
    with("objects", array(&header("|O", "2, 2"), &[0; 32]));
    with("nested", array(&"(".repeat(60_000), &[]));
    let long = [b"\x93NUMPY\x02\x00".as_slice(), &u32::MAX.to_le_bytes()].concat();
    with("a header of 4 GiB", long);
    check("no count", &[("mom2.mom2", sum("2, 2", &GOOD))]);
    check("no tokens", &[("mom2.mom2", sum("2, 2", &GOOD)), ("mom2.count", count(0))]);
    check("fewer than none", &[("mom2.mom2", sum("2, 2", &GOOD)), ("mom2.count", count(-1))]);
    check("nothing", &[]);
    let path = folder.path().join("other.npz");
    for (what, bytes) in
        [("not an archive", b"PK no".to_vec()), ("half", fs::read(fixture("plain.npz")).unwrap()[..700].to_vec())]
    {
        fs::write(&path, bytes).unwrap();
        told.push_str(
            &format!("{what}: {}\n", read(&path, 6).unwrap_err()).replace(folder.path().to_str().unwrap(), "DIR"),
        );
    }
    insta::assert_snapshot!(told);
}
