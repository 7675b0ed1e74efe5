//! Questions to a model: one at a time, in a thread of its own, bounded.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;

use palinode::{Error, ErrorKind, Hint, Key, Observer, Question, Silent, answer, now_ms};
use serde_json::{Value, json};

/// Prompts of a question.
const PROMPTS: usize = 16;
/// Characters of a prompt.
const LONG: usize = 4000;
/// Tokens of an answer.
const TOKENS: usize = 200;

/// The question that is being answered, or was last.
#[derive(Default)]
pub struct Asking {
    state: Arc<(Mutex<State>, Condvar)>,
    interrupt: Arc<AtomicBool>,
}

#[derive(Default)]
enum State {
    #[default]
    Never,
    Busy {
        of: Value,
        prompts: Vec<String>,
        since_ms: u64,
    },
    Done {
        of: Value,
        number: u64,
        seconds: f64,
        answer: Result<Value, Error>,
    },
}

/// Whether a question was taken.
#[derive(Debug, PartialEq, Eq)]
pub enum Begun {
    /// It was.
    Yes,
    /// Another one is being answered.
    Busy,
    /// It is none.
    Wrong(String),
}

impl Asking {
    /// Begins to answer a question to the model under a key. `of` says which that is.
    pub fn begin(&self, store: PathBuf, key: Key, question: Question, of: Value) -> Begun {
        if let Err(why) = check(&question) {
            return Begun::Wrong(why);
        }
        let mut state = self.state.0.lock().unwrap_or_else(PoisonError::into_inner);
        let number = match &*state {
            State::Busy { .. } => return Begun::Busy,
            State::Done { number, .. } => number + 1,
            State::Never => 1,
        };
        let begun = now_ms();
        *state = State::Busy { of: of.clone(), prompts: question.prompts.clone(), since_ms: begun };
        drop(state);
        self.interrupt.store(false, Ordering::Relaxed);
        let (shared, interrupt) = (Arc::clone(&self.state), Arc::clone(&self.interrupt));
        let work = {
            let of = of.clone();
            move || {
                let silent: Arc<dyn Observer> = Arc::new(Silent);
                let answered = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                    answer(&store, &key, &question, &silent, &interrupt)
                }));
                let answer = answered.unwrap_or_else(|_| Err(Error::internal("a mistake in the program")));
                let seconds = now_ms().saturating_sub(begun) as f64 / 1000.0;
                *shared.0.lock().unwrap_or_else(PoisonError::into_inner) = State::Done { of, number, seconds, answer };
                shared.1.notify_all();
            }
        };
        if let Err(error) = thread::Builder::new().name("question".to_owned()).spawn(work) {
            let answer = Err(Error::new(ErrorKind::Limit, "no thread to answer in").source(error));
            let mut state = self.state.0.lock().unwrap_or_else(PoisonError::into_inner);
            *state = State::Done { of, number, seconds: 0.0, answer };
        }
        Begun::Yes
    }

    /// How far it is.
    pub fn state(&self, words: fn(&Hint) -> String) -> Value {
        let state = self.state.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &*state {
            State::Never => json!({ "state": "never" }),
            State::Busy { of, prompts, since_ms } => {
                json!({ "state": "busy", "of": of, "prompts": prompts, "since_ms": since_ms })
            }
            State::Done { of, number, seconds, answer: Ok(answers) } => {
                json!({ "state": "done", "of": of, "number": number, "seconds": seconds, "answers": answers })
            }
            State::Done { of, number, answer: Err(error), .. } => json!({
                "state": if error.kind == ErrorKind::Interrupted { "stopped" } else { "failed" },
                "of": of,
                "number": number,
                "message": error.with_causes(),
                "hint": error.hint.as_ref().map(words),
            }),
        }
    }

    /// Ends it after the prompt that is being answered.
    pub fn stop(&self) {
        self.interrupt.store(true, Ordering::Relaxed);
    }

    /// Ends it, and waits until what it wrote on the way is gone.
    pub fn stop_and_wait(&self) {
        self.stop();
        let state = self.state.0.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.state.1.wait_while(state, |state| matches!(state, State::Busy { .. })));
    }
}

fn check(question: &Question) -> Result<(), String> {
    let Question { prompts, tokens } = question;
    if prompts.is_empty() || prompts.iter().any(|prompt| prompt.trim().is_empty()) {
        return Err("a prompt is empty".to_owned());
    }
    if prompts.len() > PROMPTS {
        return Err(format!("at most {PROMPTS} prompts at a time"));
    }
    if prompts.iter().any(|prompt| prompt.chars().count() > LONG) {
        return Err(format!("a prompt has at most {LONG} characters"));
    }
    if *tokens > TOKENS {
        return Err(format!("at most {TOKENS} tokens"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_are_bounded() {
        let ask = |prompts: &[&str], tokens| {
            let prompts = prompts.iter().map(|&prompt| prompt.to_owned()).collect();
            check(&Question { prompts, tokens })
        };
        assert!(ask(&["a"], 20).is_ok());
        for wrong in
            [ask(&[], 1), ask(&["a", " "], 1), ask(&["a"; 17], 1), ask(&[&"a".repeat(4001)], 1), ask(&["a"], 201)]
        {
            assert!(wrong.is_err());
        }
    }
}
