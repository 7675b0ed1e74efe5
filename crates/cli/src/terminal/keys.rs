//! The `^C` that a terminal writes for a pressed Ctrl-C breaks the line under the bars, and with it their redrawing.

use std::io;

use rustix::process::getpgrp;
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcgetpgrp, tcsetattr};

/// Pressed control keys leave no trace from now on.
pub fn hide() {
    set(|modes| modes.remove(LocalModes::ECHOCTL));
}

/// Pressed control keys are written again.
pub fn show() {
    set(|modes| modes.insert(LocalModes::ECHOCTL));
}

/// A terminal that refuses is left as it is: this is about looks only. In the background it has to be left alone.
fn set(change: impl FnOnce(&mut LocalModes)) {
    if tcgetpgrp(io::stderr()) != Ok(getpgrp()) {
        return;
    }
    if let Ok(mut modes) = tcgetattr(io::stderr()) {
        change(&mut modes.local_modes);
        let _ = tcsetattr(io::stderr(), OptionalActions::Now, &modes);
    }
}
