//! Files that commands write for people: how they are known again as the program's own, and when they are written over.

use clap::Args;
use palinode::{Digest, Overwrite};

/// Whether to write over what is there.
#[derive(Args, Clone, Copy, Default)]
pub struct OverwriteArgs {
    /// Write even if something else is there. Files of a folder that are not replaced stay.
    #[arg(long)]
    overwrite: bool,
}

impl OverwriteArgs {
    /// As the library takes it.
    pub fn get(self) -> Overwrite {
        Overwrite::if_wanted(self.overwrite)
    }
}

/// What stands in the comment before the digest.
const SEAL: &str = "written by palinode, and not changed since if the digest of all above is ";

/// A text with its digest in a comment at the end, between what begins and what ends one. By it, a file that the program wrote is known
/// from one that someone has worked on since.
pub fn sealed(text: &str, (begin, end): (&str, &str)) -> String {
    let text = if text.ends_with('\n') { text.to_owned() } else { format!("{text}\n") };
    let digest = Digest::of(text.as_bytes());
    format!("{text}{begin} {SEAL}{digest} {end}").trim_end().to_owned() + "\n"
}

/// Whether a file is as [`sealed`] made it.
pub fn is_sealed(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    let Some(start) = text.trim_end().rfind('\n').map(|at| at + 1) else { return false };
    let (body, last) = text.split_at(start);
    let digest = last.split_once(SEAL).and_then(|(_, rest)| rest.split(' ').next());
    digest.and_then(|digest| digest.trim().parse::<Digest>().ok()) == Some(Digest::of(body.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_changed_is_no_longer_sealed() {
        for comment in [("<!--", "-->"), ("%%", ""), ("//", "")] {
            for text in ["", "a", "a\nb\n"] {
                let sealed = sealed(text, comment);
                assert!(sealed.starts_with(text) && is_sealed(sealed.as_bytes()), "{sealed}");
                assert!(!is_sealed(format!("x{sealed}").as_bytes()) && !is_sealed(format!("{sealed}x").as_bytes()));
                assert!(!is_sealed(text.as_bytes()));
            }
        }
    }
}
