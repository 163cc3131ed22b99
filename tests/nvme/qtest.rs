//! The two sockets of a QEMU: qtest for what a processor would do, QMP for what an operator would.

use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use stripewise::bdev::nvme::pcie::Bar;

use super::allocations::uncounted;

/// Longest wait for an answer. Nothing takes as long.
const PATIENCE: Duration = Duration::from_secs(60);

/// A socket with a line for each question and each answer.
#[derive(Debug)]
struct Lines {
    stream: UnixStream,
    answers: BufReader<UnixStream>,
}

impl Lines {
    /// Connects as soon as somebody listens.
    fn connect(path: &Path) -> Self {
        let start = Instant::now();
        let stream = loop {
            match UnixStream::connect(path) {
                Ok(stream) => break stream,
                Err(error) if start.elapsed() > PATIENCE => {
                    panic!("{}: {error}; is qemu-system-x86_64 there?", path.display())
                }
                Err(_) => thread::sleep(Duration::from_millis(10)),
            }
        };
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let answers = BufReader::new(stream.try_clone().unwrap());
        Self { stream, answers }
    }

    fn say(&mut self, line: &str) {
        // Where nobody listens any more, there will be no answer either.
        let _ = self.stream.write_all(line.as_bytes());
    }

    /// The next line; `None` once QEMU has ended.
    fn hear(&mut self) -> Option<String> {
        let mut line = String::new();
        match self.answers.read_line(&mut line) {
            Ok(0) => None,
            Ok(_) => Some(line),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => None,
            Err(error) => panic!("no answer of QEMU: {error}"),
        }
    }
}

/// The qtest socket; many threads may use it.
#[derive(Debug)]
pub struct Qtest(Mutex<Lines>);

impl Qtest {
    pub fn connect(path: &Path) -> Arc<Self> {
        Arc::new(Self(Mutex::new(Lines::connect(path))))
    }

    /// Runs a command; answers its number, if it has one, and all ones once QEMU has ended: so a device
    /// that is gone reads.
    fn ask(&self, command: &str) -> u64 {
        ask(&mut self.lines(), command)
    }

    fn lines(&self) -> MutexGuard<'_, Lines> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes to an I/O port.
    pub fn out(&self, port: u16, value: u32) {
        self.ask(&format!("outl {port:#x} {value:#x}"));
    }

    /// Whether a slot has a device.
    pub fn has(&self, slot: u8) -> bool {
        self.read_config(slot, 0) != u32::MAX
    }

    fn read_config(&self, slot: u8, register: u8) -> u32 {
        // Two steps, between which nobody else may do the first.
        let mut lines = self.lines();
        ask(&mut lines, &select(slot, register));
        ask(&mut lines, "inl 0xcfc") as u32
    }

    fn write_config(&self, slot: u8, register: u8, value: u32) {
        let mut lines = self.lines();
        ask(&mut lines, &select(slot, register));
        ask(&mut lines, &format!("outl 0xcfc {value:#x}"));
    }
}

/// Chooses a register of the configuration space.
fn select(slot: u8, register: u8) -> String {
    let address = 0x8000_0000 | u32::from(slot) << 11 | u32::from(register);
    format!("outl 0xcf8 {address:#x}")
}

fn ask(lines: &mut Lines, command: &str) -> u64 {
    lines.say(&format!("{command}\n"));
    loop {
        let Some(line) = lines.hear() else {
            return u64::MAX;
        };
        let line = line.trim_end();
        if line.starts_with("IRQ") {
            continue;
        }
        let number = line
            .strip_prefix("OK")
            .unwrap_or_else(|| panic!("{command}: {line}"))
            .trim();
        let digits = number.strip_prefix("0x");
        return digits.map_or(0, |d| u64::from_str_radix(d, 16).expect("a number"));
    }
}

/// BAR 0 of the device in a PCI slot.
#[derive(Debug)]
pub struct QtestBar {
    qtest: Arc<Qtest>,
    slot: u8,
    base: u64,
    size: u32,
}

const COMMAND: u8 = 0x04;
const BAR0: u8 = 0x10;
const MEMORY_SPACE: u32 = 0b010;
const BUS_MASTER: u32 = 0b100;

impl QtestBar {
    /// Maps it at an address of its own.
    pub fn map(qtest: &Arc<Qtest>, slot: u8) -> Arc<Self> {
        assert_eq!(
            qtest.read_config(slot, 0x08) >> 8,
            0x01_0802,
            "an NVMe controller"
        );
        qtest.write_config(slot, BAR0, u32::MAX);
        let size = !(qtest.read_config(slot, BAR0) & !0xf) + 1;
        let base = 0xe000_0000 + u32::from(slot) * 0x10_0000;
        qtest.write_config(slot, BAR0, base);
        qtest.write_config(slot, BAR0 + 4, 0);
        qtest.write_config(slot, COMMAND, MEMORY_SPACE);
        Arc::new(Self {
            qtest: qtest.clone(),
            slot,
            base: u64::from(base),
            size,
        })
    }

    /// Says something about a register.
    fn tell(&self, command: impl FnOnce(u64) -> String, offset: u32) -> u64 {
        assert!(offset < self.size, "offset {offset:#x}");
        let at = self.base + u64::from(offset);
        uncounted(|| self.qtest.ask(&command(at)))
    }
}

impl Bar for QtestBar {
    fn size(&self) -> u32 {
        self.size
    }

    fn read32(&self, offset: u32) -> u32 {
        self.tell(|at| format!("readl {at:#x}"), offset) as u32
    }

    fn read64(&self, offset: u32) -> u64 {
        self.tell(|at| format!("readq {at:#x}"), offset)
    }

    fn write32(&self, offset: u32, value: u32) {
        self.tell(|at| format!("writel {at:#x} {value:#x}"), offset);
    }

    fn write64(&self, offset: u32, value: u64) {
        self.tell(|at| format!("writeq {at:#x} {value:#x}"), offset);
    }

    fn start_dma(&self) {
        let both = MEMORY_SPACE | BUS_MASTER;
        self.qtest.write_config(self.slot, COMMAND, both);
    }

    fn stop_dma(&self) {
        self.qtest.write_config(self.slot, COMMAND, MEMORY_SPACE);
    }
}

/// The QMP socket.
#[derive(Debug)]
pub struct Qmp(Lines);

impl Qmp {
    pub fn connect(path: &Path) -> Self {
        let mut qmp = Self(Lines::connect(path));
        let greeting = qmp.0.hear().expect("a greeting");
        assert!(greeting.contains("QMP"), "{greeting}");
        qmp.run("qmp_capabilities", &json!({}));
        qmp
    }

    /// Runs a command, which must succeed.
    pub fn run(&mut self, command: &str, arguments: &Value) -> Value {
        let question = json!({"execute": command, "arguments": arguments});
        self.0.say(&format!("{question}\n"));
        loop {
            let line = self.0.hear().expect("an answer");
            let answer: Value = serde_json::from_str(&line).expect("JSON");
            if let Some(value) = answer.get("return") {
                return value.clone();
            }
            assert!(answer.get("error").is_none(), "{command}: {answer}");
        }
    }
}
