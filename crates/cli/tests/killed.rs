//! Killed at any moment, the next run goes on, yields what an uninterrupted one does, and does nothing twice.
//!
//! The number of kills is small here; `PALINODE_KILLS=100 cargo test --release --workspace --test killed -- --nocapture` is
//! the long form. `PALINODE_SEED` picks other moments.

mod interrupted;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use interrupted::{attempts_are_recorded, command, folder, no_unit_was_done_twice, results, uninterrupted};
use palinode::Store;

/// Numbers that are the same every time.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end.max(1)
    }
}

fn number(name: &str, usual: u64) -> u64 {
    std::env::var(name).map_or(usual, |value| value.parse().expect(name))
}

#[test]
fn killed_runs_go_on() {
    let kills = number("PALINODE_KILLS", 8);
    let mut dice = Dice(number("PALINODE_SEED", 0x9e37_79b9));
    let (expected, whole) = uninterrupted();
    let (mut killed, mut harmed, mut finished) = (0, 0, 0);
    while killed < kills {
        let dir = folder();
        let store = dir.path().join("store");
        loop {
            let mut child = command(dir.path()).spawn().unwrap();
            // Past what is left of it too, so that every moment has its chance.
            let wait = dice.below(whole.as_millis() as u64 * 2 / 3);
            std::thread::sleep(Duration::from_millis(wait));
            child.kill().unwrap();
            let output = child.wait_with_output().unwrap();
            if output.status.success() {
                break;
            }
            assert!(output.status.code().is_none(), "it failed: {}", String::from_utf8_lossy(&output.stderr));
            killed += 1;
            if dice.below(3) == 0 {
                harmed += u64::from(harm_index(&store.join("index"), &mut dice));
            }
            if killed >= kills {
                let output = command(dir.path()).output().unwrap();
                assert!(output.status.success(), "it does not go on: {}", String::from_utf8_lossy(&output.stderr));
                break;
            }
        }
        finished += 1;
        assert_eq!(results(dir.path()), expected, "after {killed} kills");
        let verified = Store::look(&store).unwrap().verify();
        assert_eq!(verified.damage, []);
        no_unit_was_done_twice(&store);
        attempts_are_recorded(&store);
    }
    println!(
        "{killed} kills, {harmed} damaged indexes, {finished} runs brought to their end: all as an uninterrupted run"
    );
}

/// Cuts a file of the index short, or writes over some of its bytes.
fn harm_index(index: &Path, dice: &mut Dice) -> bool {
    let files: Vec<PathBuf> = fs::read_dir(index).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    let files: Vec<PathBuf> = files.into_iter().filter(|path| path.is_file()).collect();
    let Some(path) = files.get(dice.below(files.len() as u64) as usize) else { return false };
    let mut bytes = fs::read(path).unwrap();
    if bytes.is_empty() {
        return false;
    }
    if dice.below(2) == 0 {
        bytes.truncate(dice.below(bytes.len() as u64) as usize);
    } else {
        for _ in 0..16 {
            let at = dice.below(bytes.len() as u64) as usize;
            bytes[at] ^= 0x41;
        }
    }
    fs::write(path, bytes).unwrap();
    true
}
