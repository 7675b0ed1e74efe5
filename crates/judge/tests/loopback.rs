//! Questions to a server on this machine that answers as it is told to.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use palinode_judge::{Client, JudgeError, Key, Patience, Trouble};
use serde_json::{Map, Value, json};

/// What the server is to say, in turn, and what it was asked.
#[derive(Default)]
struct State {
    answers: VecDeque<(&'static str, String)>,
    asked: Vec<(String, Value)>,
}

struct Server(u16, Arc<Mutex<State>>);

impl Server {
    fn new(answers: &[(&'static str, &str)]) -> Self {
        let answers = answers.iter().map(|(head, body)| (*head, (*body).to_owned())).collect();
        let state = Arc::new(Mutex::new(State { answers, asked: Vec::new() }));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let _ = answer(stream, &shared);
            }
        });
        Self(port, state)
    }

    fn client(&self, key: Option<&str>) -> Client {
        let patience = Patience { timeout: Duration::from_secs(30), retries: 3 };
        let url = format!("http://127.0.0.1:{}/v1/", self.0);
        let key = key.map(|key| Key::new(key).unwrap());
        let options: Map<String, Value> = json!({ "max_tokens": null, "top_p": 1 }).as_object().cloned().unwrap();
        Client::new(&url, "judge-1", &options, key, patience).unwrap()
    }

    fn asked(&self) -> Vec<(String, Value)> {
        std::mem::take(&mut self.1.lock().unwrap().asked)
    }
}

fn answer(mut stream: TcpStream, state: &Mutex<State>) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        if line.trim().is_empty() {
            break;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length: ") {
            length = value.trim().parse().unwrap();
        }
        head.push_str(&line);
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let mut state = state.lock().unwrap();
    state.asked.push((head, serde_json::from_slice(&body).unwrap()));
    let Some((head, body)) = state.answers.pop_front() else { return Ok(()) };
    let length = body.len();
    write!(stream, "HTTP/1.1 {head}\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}")
}

const GOOD: (&str, &str) = ("200 OK", r#"{"choices": [{"message": {"content": "CORRECT"}}]}"#);

/// A reply or what went wrong, and the waits in seconds.
fn ask(client: &Client) -> (Result<String, JudgeError>, Vec<u64>) {
    let waits = Mutex::new(Vec::new());
    let pause = |wait: Duration| {
        waits.lock().unwrap().push(wait.as_secs());
        true
    };
    let reply = client.ask("is it?", &pause);
    (reply, waits.into_inner().unwrap())
}

#[test]
fn a_question_is_a_chat_completion() {
    let server = Server::new(&[GOOD, GOOD]);
    assert_eq!(ask(&server.client(Some("sk-1"))).0.unwrap(), "CORRECT");
    let (head, body) = server.asked().remove(0);
    assert!(head.starts_with("POST /v1/chat/completions HTTP/1.1"), "{head}");
    assert!(head.contains("Bearer sk-1"), "{head}");
    let messages = json!([{ "role": "user", "content": "is it?" }]);
    assert_eq!(body, json!({ "model": "judge-1", "temperature": 0, "top_p": 1, "messages": messages }));
    ask(&server.client(None)).0.unwrap();
    assert!(!server.asked().remove(0).0.to_ascii_lowercase().contains("authorization"));
}

#[test]
fn a_busy_server_is_asked_again_when_it_wishes() {
    let limit = r#"{"error": {"message": "slow down"}}"#;
    let server = Server::new(&[
        ("429 Too Many Requests\r\nretry-after: 7", limit),
        ("503 Service Unavailable", ""),
        ("500 Internal Server Error\r\nretry-after: soon", ""),
        GOOD,
    ]);
    let (reply, waits) = ask(&server.client(None));
    assert_eq!((reply.unwrap().as_str(), waits), ("CORRECT", vec![7, 2, 4]));

    // A date counts from the server's own clock.
    let server = Server::new(&[
        (
            "503 Service Unavailable\r\ndate: Fri, 27 Nov 2026 10:00:00 GMT\r\nretry-after: Fri, 27 Nov 2026 10:00:42 GMT",
            "",
        ),
        GOOD,
    ]);
    assert_eq!(ask(&server.client(None)).1, vec![42]);

    // No more than so often, and not where it wishes for an hour.
    let server = Server::new(&[("429 Too Many Requests", limit); 9]);
    let (reply, waits) = ask(&server.client(None));
    let error = reply.unwrap_err();
    assert_eq!((error.trouble, waits), (Trouble::Busy, vec![1, 2, 4]));
    assert!(error.message.contains("answered 429: slow down"), "{error}");
    let server = Server::new(&[("429 Too Many Requests\r\nretry-after: 3600", limit), GOOD]);
    assert_eq!(ask(&server.client(None)).1, Vec::<u64>::new());
    // Broken off without an answer, and then not.
    let server = Server::new(&[]);
    let waits = ask(&server.client(None));
    assert_eq!((waits.0.unwrap_err().trouble, waits.1), (Trouble::Busy, vec![1, 2, 4]));
    let stopped = server.client(None).ask("is it?", &|_| false).unwrap_err();
    assert_eq!(stopped.trouble, Trouble::Stopped);
}

/// A server that takes a call and says nothing is given up after the time that a call may take.
#[test]
fn a_silent_server_is_out_of_time() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://127.0.0.1:{}", listener.local_addr().unwrap().port());
    let patience = Patience { timeout: Duration::from_millis(50), retries: 1 };
    let client = Client::new(&url, "judge-1", &Map::new(), None, patience).unwrap();
    let (reply, waits) = ask(&client);
    let error = reply.unwrap_err();
    assert_eq!((error.trouble, waits), (Trouble::Busy, vec![1]), "{error}");
    assert_eq!(error.message, format!("{url} did not answer within 0.05 s"));
}

#[test]
fn what_cannot_go_better_ends_and_says_no_key() {
    let echo = r#"{"error": {"message": "no such key: sk-secret"}}"#;
    for (head, hint) in [
        ("401 Unauthorized", "does not open it"),
        ("404 Not Found", "`url`"),
        ("400 Bad Request", "`options`"),
        ("307 Temporary Redirect\r\nlocation: http://127.0.0.1:1/v1", "redirections"),
    ] {
        let server = Server::new(&[(head, echo), GOOD]);
        let (reply, waits) = ask(&server.client(Some("sk-secret")));
        let error = reply.unwrap_err();
        assert_eq!((error.trouble, waits.len(), server.asked().len()), (Trouble::Refused, 0, 1), "{error}");
        assert!(!error.message.contains("sk-secret") && error.hint.unwrap().contains(hint), "{}", error.message);
    }
    let server = Server::new(&[
        ("200 OK", r#"{"choices": []}"#),
        ("200 OK", "<html>"),
        ("200 OK", r#"{"choices": [{"message": {"content": "sk-secret"}}]}"#),
    ]);
    let client = server.client(Some("sk-secret"));
    for _ in 0..2 {
        assert!(ask(&client).0.unwrap_err().message.contains("without a text"));
    }
    assert_eq!(ask(&client).0.unwrap(), "[key]");
}
