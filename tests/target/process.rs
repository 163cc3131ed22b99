//! A target as a process: its start, its socket, its end.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Longest wait for anything. Far more than anything takes: reaching it means that it never comes.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Tests that run a target take turns.
static TURN: Mutex<()> = Mutex::new(());

/// Asks again and again until there is an answer.
///
/// # Panics
/// When there is none within [`PATIENCE`].
pub fn wait_for<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < until, "waited in vain for {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// The end of a child, or none within [`PATIENCE`].
pub fn wait_for_exit(child: &mut Child, what: &str) -> ExitStatus {
    wait_for(&format!("the end of {what}"), || {
        child.try_wait().expect("a child can be waited for")
    })
}

/// Sends a signal to a child that has not been waited for.
pub fn signal(child: &Child, signal: Signal) {
    let pid = Pid::from_child(child);
    kill_process(pid, signal).expect("the child is there until it is waited for");
}

/// The program under test.
pub fn stripewise() -> Command {
    // The kernel kills it with the thread that starts it, even if that has no time to clean up.
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", env!("CARGO_BIN_EXE_stripewise")]);
    command.env_remove("RUST_LOG").stdin(Stdio::null());
    command
}

/// Where a target lives: its address, its socket, its files. It outlives the process, so that a
/// target can be started again.
#[derive(Debug)]
pub struct Site {
    /// Sockets and logs; the path is short, as sockets need it.
    folder: TempDir,
    /// Member files, on the file system of the build, which takes direct I/O.
    files: TempDir,
    address: SocketAddr,
    /// None for a place beside another one, which has it.
    _turn: Option<MutexGuard<'static, ()>>,
}

impl Site {
    /// A place for one target, once all other tests have left theirs.
    pub fn new() -> Self {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        // A loopback address that no other process has: its ports are all free.
        let [_, a, b, c] = std::process::id().to_be_bytes();
        let address = Ipv4Addr::new(127, 64 | (a & 63), b, c);
        Self::at(SocketAddr::from((address, 4420)), Some(turn))
    }

    /// A place for another target at the same time, as if on a machine of its own; each has another
    /// number, from 1 on.
    pub fn beside(&self, number: u16) -> Self {
        Self::at(SocketAddr::new(self.address.ip(), 4420 + number), None)
    }

    fn at(address: SocketAddr, turn: Option<MutexGuard<'static, ()>>) -> Self {
        Self {
            folder: TempDir::new().expect("a temporary folder"),
            files: TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).expect("a temporary folder"),
            address,
            _turn: turn,
        }
    }

    /// Where hosts connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The RPC socket.
    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("rpc.sock")
    }

    /// A file of this name on a real file system.
    pub fn file(&self, name: &str) -> PathBuf {
        self.files.path().join(name)
    }

    /// A file of this name for what is written by tests and programs themselves.
    pub fn scratch(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a configuration and gives its path.
    pub fn write_config(&self, config: &Value) -> PathBuf {
        let path = self.scratch("config.json");
        fs::write(&path, config.to_string()).expect("a file can be written");
        path
    }

    /// Starts a target on the cores of `mask` and waits until it serves.
    ///
    /// # Panics
    /// Where it does not, with what it said.
    pub fn serve(&self, config: &Value, mask: &str) -> Target<'_> {
        self.serve_with(config, mask, &[])
    }

    /// As [`Site::serve`], with further options.
    pub fn serve_with(&self, config: &Value, mask: &str, options: &[&str]) -> Target<'_> {
        let config = self.write_config(config);
        let log = self.scratch("target.log");
        let errors = File::options().create(true).append(true).open(&log);
        let child = stripewise()
            .args(["serve", "-m", mask, "-s", "256", "-c"])
            .arg(config)
            .arg("-r")
            .arg(self.socket())
            .args(options)
            .stdout(Stdio::null())
            .stderr(errors.expect("a log"))
            .spawn()
            .expect("setpriv (util-linux) and the program can be started");
        let mut target = Target {
            site: self,
            child,
            log,
            ended: false,
        };
        wait_for("the target to serve", || {
            if let Some(status) = target.child.try_wait().expect("a child") {
                target.ended = true;
                panic!("the target has ended with {status}:\n{}", target.log());
            }
            target.rpc("spdk_get_version", json!({})).ok()
        });
        target
    }
}

/// A call that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub code: i64,
    pub message: String,
}

/// A serving process. Dropped, it is killed.
#[derive(Debug)]
pub struct Target<'s> {
    site: &'s Site,
    child: Child,
    log: PathBuf,
    ended: bool,
}

impl Target<'_> {
    /// Where it lives.
    pub fn site(&self) -> &Site {
        self.site
    }

    /// What it has written to stderr so far, earlier processes of the same place included.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Makes a call.
    ///
    /// # Errors
    /// What the target answers; code 0 where it does not answer at all.
    pub fn rpc(&self, method: &str, params: Value) -> Result<Value, Refusal> {
        ask(&self.site.socket(), method, params).unwrap_or_else(|error| {
            Err(Refusal {
                code: 0,
                message: error.to_string(),
            })
        })
    }

    /// Makes a call that must succeed.
    pub fn call(&self, method: &str, params: Value) -> Value {
        let answer = self.rpc(method, params);
        answer.unwrap_or_else(|refusal| panic!("{method}: {refusal:?}\n{}", self.log()))
    }

    /// Sends it a signal.
    pub fn signal(&self, wanted: Signal) {
        signal(&self.child, wanted);
    }

    /// Waits until it has ended by itself.
    pub fn wait(&mut self) -> ExitStatus {
        let status = wait_for_exit(&mut self.child, "the target");
        self.ended = true;
        status
    }

    /// Kills it on the spot, as `kill -9` does.
    pub fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.wait();
    }

    /// Open files of the process.
    pub fn open_files(&self) -> usize {
        let folder = format!("/proc/{}/fd", self.child.id());
        fs::read_dir(folder).expect("its files").count()
    }

    /// The mappings of the process by first address: size, and how much of it is in memory, in KiB.
    pub fn mappings(&self) -> BTreeMap<String, (u64, u64)> {
        let maps = fs::read_to_string(format!("/proc/{}/smaps", self.child.id()));
        let maps = maps.expect("its mappings");
        let kib = |line: &str, name: &str| -> Option<u64> {
            let number = line.strip_prefix(name)?.split_whitespace().next()?;
            Some(number.parse().expect("a number"))
        };
        let mut mappings = BTreeMap::new();
        let (mut first, mut size) = (String::new(), 0);
        for line in maps.lines() {
            // A mapping begins with its addresses, then come lines of names and values.
            let name = line.split_whitespace().next().unwrap_or_default();
            if !name.ends_with(':') {
                first = name.to_owned();
                first.truncate(name.find('-').unwrap_or(name.len()));
            }
            size = kib(line, "Size:").unwrap_or(size);
            if let Some(resident) = kib(line, "Rss:") {
                mappings.insert(first.clone(), (size, resident));
            }
        }
        mappings
    }

    /// Sum of a count over all poll groups.
    pub fn stat(&self, name: &str) -> u64 {
        let stats = self.call("nvmf_get_stats", json!({}));
        let groups = stats["poll_groups"].as_array().expect("groups").iter();
        groups.map(|g| g[name].as_u64().expect(name)).sum()
    }

    /// Sum over all poll groups of a count of the transport.
    pub fn transport_stat(&self, name: &str) -> u64 {
        let stats = self.call("nvmf_get_stats", json!({}));
        let groups = stats["poll_groups"].as_array().expect("groups").iter();
        groups
            .map(|g| g["transports"][0][name].as_u64().expect(name))
            .sum()
    }
}

impl Drop for Target<'_> {
    fn drop(&mut self) {
        if !self.ended {
            // It can have ended by itself meanwhile.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        if thread::panicking() {
            eprintln!("-- the target said:\n{}", self.log());
        }
    }
}

/// One call on a connection of its own.
pub fn ask(socket: &Path, method: &str, params: Value) -> std::io::Result<Result<Value, Refusal>> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let request = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
    stream.write_all(request.to_string().as_bytes())?;
    let mut text = Vec::new();
    let mut piece = [0; 4096];
    let mut answer: Value = loop {
        let len = stream.read(&mut piece)?;
        text.extend_from_slice(&piece[..len]);
        match serde_json::from_slice(&text) {
            Ok(answer) => break answer,
            Err(error) if len == 0 => return Err(error.into()),
            Err(_) => {}
        }
    };
    if let Some(result) = answer.get_mut("result") {
        return Ok(Ok(result.take()));
    }
    Ok(Err(Refusal {
        code: answer["error"]["code"].as_i64().unwrap_or_default(),
        message: answer["error"]["message"].to_string(),
    }))
}
