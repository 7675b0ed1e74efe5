//! Questions to a server that speaks OpenAI's chat completions, and the verdicts in its replies.
//!
//! * [`Client`]: one question, one reply, with retries where a server is busy.
//! * [`Key`]: what opens the server. It is in one header of a request and nowhere else: no text that this crate gives away has it.
//! * [`verdict`]: what a reply says.
//!
//! The server is whatever the user names: a company's, or one on this machine (vLLM, llama.cpp, Ollama). Nothing is sent anywhere else, and a
//! redirection is not followed.

mod client;
mod key;
mod verdict;

pub use client::{Client, JudgeError, Patience, Trouble};
pub use key::{Key, VARIABLE};
pub use verdict::{fill, verdict};
