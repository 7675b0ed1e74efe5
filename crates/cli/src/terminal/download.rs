//! Downloads, as they go on: a bar on a terminal, a line for each file elsewhere.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use indicatif::{ProgressBar, ProgressStyle};
use palinode::Download;
use serde_json::json;

use super::{How, Style, complain, format, safe};

/// Shows downloads.
pub struct Downloads {
    how: How,
    terminal: bool,
    bar: Option<ProgressBar>,
    /// The reference and the file that were shown last.
    last: (String, String),
    interrupt: Arc<AtomicBool>,
}

impl Downloads {
    /// Those of a command; `interrupt` stops them.
    pub fn new(how: How, interrupt: &Arc<AtomicBool>) -> Self {
        let terminal = Style::stderr().terminal && how == How::Person;
        Self { how, terminal, bar: None, last: Default::default(), interrupt: Arc::clone(interrupt) }
    }

    /// Shows how far one is, and says whether to go on.
    pub fn show(&mut self, download: Download<'_>) -> bool {
        let Download { reference, file, done, total } = download;
        let new_reference = self.last.0 != reference;
        let new_file = new_reference || self.last.1 != file;
        if new_file {
            self.last = (reference.to_owned(), file.to_owned());
        }
        match self.how {
            How::Json if new_file => {
                emit(
                    &json!({ "event": "downloading", "reference": reference, "file": file, "done": done, "total": total }),
                );
            }
            How::Person if self.terminal => {
                if new_reference {
                    self.end();
                }
                let bar = self.bar.get_or_insert_with(|| bar(total));
                bar.set_message(safe::line(&format!("{reference}  {file}")));
                bar.set_position(done);
            }
            How::Person if new_reference => {
                complain(&format!("downloading {reference} ({})\n", format::size(total)));
            }
            _ => {}
        }
        !self.interrupt.load(Ordering::Relaxed)
    }

    fn end(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

impl Drop for Downloads {
    fn drop(&mut self) {
        self.end();
    }
}

fn bar(total: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:24} {bytes}/{total_bytes} {bytes_per_sec}  {wide_msg}");
    ProgressBar::new(total).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

/// Events go to stdout, each in a line. The run goes on when its reader has left.
fn emit(event: &serde_json::Value) {
    use std::io::Write as _;
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{}", safe::json(&event.to_string())).and_then(|()| out.flush());
}
