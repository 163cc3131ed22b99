//! A serving process of the tests' own: started, spoken to, and ended.

#![allow(dead_code)]

use std::fs::{self, File};
use std::io::{BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use stripewise::reactor::CoreMask;
use tempfile::TempDir;

/// How long anything may take before the test fails. Nothing takes as long.
pub const BOUND: Duration = Duration::from_secs(120);

/// The program.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_stripewise");

/// A core mask that this machine has.
pub fn mask(cores: usize) -> String {
    let available = CoreMask::available().expect("the machine has cores");
    let mask = CoreMask::of(available.cores().take(cores));
    mask.expect("at least one").to_string()
}

/// Waits until `done` gives something.
pub fn wait_for<T>(what: &str, mut done: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + BOUND;
    loop {
        if let Some(thing) = done() {
            return thing;
        }
        assert!(Instant::now() < until, "waited for {what} in vain");
        sleep(Duration::from_millis(10));
    }
}

/// A folder of the test, and what is served out of it.
pub struct Place {
    pub dir: TempDir,
}

impl Place {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        Self { dir }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn socket(&self) -> PathBuf {
        self.path("rpc.sock")
    }

    /// Writes a configuration and gives its path.
    pub fn config(&self, config: &Value) -> PathBuf {
        self.text("config.json", &config.to_string())
    }

    pub fn text(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, text).expect("the folder can be written");
        path
    }

    /// Runs `serve` with these arguments besides a socket, little memory and one core.
    pub fn spawn(&self, more: &[&str]) -> Serving {
        let output = |name: &str| File::create(self.path(name)).expect("a file");
        let socket = self.socket();
        let mask = mask(1);
        let mut args = vec!["serve"];
        let defaults = [
            ("-r", socket.to_str().expect("plain")),
            ("-m", mask.as_str()),
            ("-s", "64"),
        ];
        for (option, value) in defaults {
            if !more.contains(&option) {
                args.extend([option, value]);
            }
        }
        args.extend(more);
        let child = Command::new(PROGRAM)
            .args(args)
            .env_remove("RUST_LOG")
            .stdin(Stdio::null())
            .stdout(output("stdout"))
            .stderr(output("stderr"))
            .spawn()
            .expect("the program starts");
        Serving {
            child,
            socket,
            stdout: self.path("stdout"),
            stderr: self.path("stderr"),
        }
    }

    /// Runs `serve` and waits until it serves.
    pub fn serve(&self, more: &[&str]) -> Serving {
        let mut serving = self.spawn(more);
        wait_for("the target", || {
            if let Some(status) = serving.child.try_wait().expect("it can be asked") {
                panic!("it ended with {status}: {}", serving.stderr());
            }
            serving.stdout().contains("Try:").then_some(())
        });
        serving
    }

    /// Runs `serve` with a configuration that it cannot take; gives what it says.
    pub fn refuse(&self, config: &Value, more: &[&str]) -> String {
        let path = self.config(config);
        let mut args = vec!["-c", path.to_str().expect("plain")];
        args.extend(more);
        self.spawn_and_refuse(&args)
    }

    /// Runs `serve` with arguments that it cannot take; gives what it says.
    pub fn spawn_and_refuse(&self, args: &[&str]) -> String {
        self.spawn(args).refusal()
    }
}

/// A process that serves, or is about to.
pub struct Serving {
    pub child: Child,
    pub socket: PathBuf,
    stdout: PathBuf,
    stderr: PathBuf,
}

impl Serving {
    pub fn stdout(&self) -> String {
        fs::read_to_string(&self.stdout).unwrap_or_default()
    }

    pub fn stderr(&self) -> String {
        fs::read_to_string(&self.stderr).unwrap_or_default()
    }

    pub fn client(&self) -> Client {
        Client::connect(&self.socket)
    }

    pub fn call(&self, method: &str, params: Value) -> Value {
        let answer = self.client().call(method, params);
        answer.unwrap_or_else(|e| panic!("{method}: {e}"))
    }

    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).expect("it is there");
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> ExitStatus {
        wait_for("its end", || {
            self.child.try_wait().expect("it can be asked")
        })
    }

    /// Asks it to end, and that it ends well and leaves no socket.
    pub fn end(mut self) {
        self.signal(Signal::TERM);
        let status = self.wait();
        assert_eq!(status.code(), Some(0), "{}", self.stderr());
        assert!(!self.socket.exists(), "the socket is still there");
    }

    /// Waits for it to give up, having served nothing, and gives what it says.
    fn refusal(mut self) -> String {
        let status = self.wait();
        let said = self.stderr();
        assert_eq!(status.code(), Some(1), "{said}");
        assert!(!self.stdout().contains("is up"), "{}", self.stdout());
        said
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        // Already gone where the test was well.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A client of the RPC socket.
pub struct Client {
    pub stream: UnixStream,
}

impl Client {
    pub fn connect(socket: &Path) -> Self {
        let stream = UnixStream::connect(socket).expect("it listens");
        stream.set_read_timeout(Some(BOUND)).expect("a timeout");
        stream.set_write_timeout(Some(BOUND)).expect("a timeout");
        Self { stream }
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("it takes the bytes");
    }

    /// The next line, as JSON; `None` at the end of the stream.
    pub fn receive(&mut self) -> Option<Value> {
        let mut line = Vec::new();
        let mut byte = [0];
        loop {
            match self.stream.read(&mut byte) {
                Ok(0) => return None,
                Ok(_) if byte[0] == b'\n' => break,
                Ok(_) => line.push(byte[0]),
                Err(e) => panic!("no answer: {e}"),
            }
        }
        Some(serde_json::from_slice(&line).expect("answers are JSON"))
    }

    /// Whether the other side has closed the connection; bytes on the way are skipped.
    pub fn is_closed(&mut self) -> bool {
        let mut rest = Vec::new();
        BufReader::new(&self.stream).read_to_end(&mut rest).is_ok()
    }

    /// The result, or the error.
    pub fn call(&mut self, method: &str, params: Value) -> Result<Value, Value> {
        let mut request = json!({"jsonrpc": "2.0", "id": 1, "method": method});
        if !params.is_null() {
            request["params"] = params;
        }
        self.send(request.to_string().as_bytes());
        let mut answer = self.receive().expect("an answer");
        match answer.get_mut("result") {
            Some(result) => Ok(result.take()),
            None => Err(answer["error"].take()),
        }
    }
}
