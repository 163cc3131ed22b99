//! A QEMU with NVMe controllers and no guest.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use stripewise::bdev::nvme::pcie::{Access, Controller, Options};
use stripewise::bdev::{Bdev, Channel, Completion};
use stripewise::memory::{Arena, Pool, Windows};
use tempfile::TempDir;

use super::qtest::{Qmp, Qtest, QtestBar};

/// Longest wait for anything. Far more than anything takes.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Bytes of the machine's memory, and from where on it is ours.
const MEMORY: u64 = 128 << 20;
const OURS: u64 = 16 << 20;

/// The PCI slot of the first controller.
const SLOT: u8 = 4;

/// A controller with one namespace, as it is to be made.
#[derive(Clone, Debug)]
pub struct Drive {
    /// Bytes of the image.
    pub bytes: u64,
    /// Bytes of a block.
    pub block_size: u32,
    /// More properties of the image, in the form of `-drive`.
    pub image: String,
    /// More properties of the controller, in the form of `-device`.
    pub controller: String,
}

impl Default for Drive {
    fn default() -> Self {
        Self {
            bytes: 4 << 20,
            block_size: 512,
            image: String::new(),
            controller: String::new(),
        }
    }
}

/// A running QEMU, which ends with the value.
#[derive(Debug)]
pub struct Machine {
    child: Child,
    pub qtest: Arc<Qtest>,
    pub qmp: Qmp,
    pub arena: Arena,
    windows: Windows,
    folder: TempDir,
}

impl Machine {
    /// Starts one with these drives, each behind a controller of its own.
    pub fn start(drives: &[Drive]) -> Self {
        // The memory of the machine is better not written to a disk.
        let folder = TempDir::new_in("/dev/shm")
            .or_else(|_| TempDir::new())
            .unwrap();
        let path = |name: &str| folder.path().join(name);
        let ram = File::create_new(path("ram")).unwrap();
        ram.set_len(MEMORY).unwrap();
        fs::write(path("halt"), halted()).unwrap();
        // The kernel ends it with the thread that starts it, even if that has no time to.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "qemu-system-x86_64"]);
        command.args(["-nodefaults", "-display", "none", "-accel", "tcg"]);
        command.args(["-machine", "pc,memory-backend=ram", "-m", "128M"]);
        command.arg("-bios").arg(path("halt"));
        let backend = format!(
            "memory-backend-file,id=ram,size={MEMORY},share=on,mem-path={}",
            path("ram").display()
        );
        command.args(["-object", &backend]);
        for (index, drive) in drives.iter().enumerate() {
            let image = path(&format!("image{index}"));
            File::create_new(&image)
                .unwrap()
                .set_len(drive.bytes)
                .unwrap();
            let (image, slot) = (image.display(), usize::from(SLOT) + index);
            let Drive {
                block_size,
                image: more,
                controller,
                ..
            } = drive;
            let file = match more.contains("blkdebug") {
                true => format!("file.image.driver=file,file.image.filename={image}"),
                false => format!("file={image}"),
            };
            command.args([
                "-drive",
                &format!("if=none,id=d{index},format=raw,{file}{more}"),
            ]);
            let device = format!("nvme,id=n{index},serial=QT{index},addr={slot:#x}{controller}");
            command.args(["-device", &device]);
            let namespace = format!(
                "nvme-ns,drive=d{index},bus=n{index},logical_block_size={block_size},physical_block_size={block_size}"
            );
            command.args(["-device", &namespace]);
        }
        for (kind, name) in [("-qtest", "qtest"), ("-qmp", "qmp")] {
            let socket = format!("unix:{},server=on,wait=off", path(name).display());
            command.args([kind, &socket]);
        }
        command.args(["-qtest-log", "/dev/null"]);
        command.args(["-trace", "pci_nvme_map_sgl", "-D"]);
        command.arg(path("log"));
        let child = command
            .stdin(Stdio::null())
            .spawn()
            .expect("setpriv (util-linux) and qemu-system-x86_64 (Debian's qemu-system-x86)");
        let arena = Arena::shared(&ram, OURS, (MEMORY - OURS) as usize).unwrap();
        let mut windows = Windows::new();
        windows.add(&arena, OURS);
        Self {
            child,
            qtest: Qtest::connect(&path("qtest")),
            qmp: Qmp::connect(&path("qmp")),
            arena,
            windows,
            folder,
        }
    }

    /// How a controller is reached.
    pub fn access(&self, index: u8) -> Access {
        Access {
            address: format!("0000:00:{:02x}.0", SLOT + index),
            bar: QtestBar::map(&self.qtest, SLOT + index),
            windows: self.windows.clone(),
            arena: self.arena.clone(),
        }
    }

    pub fn attach(&self, index: u8, options: Options) -> Controller {
        Controller::attach(self.access(index), options).unwrap()
    }

    /// How often a controller was told of memory by an SGL.
    pub fn sgls(&self) -> usize {
        let log = fs::read_to_string(self.folder.path().join("log")).unwrap();
        log.matches("pci_nvme_map_sgl").count()
    }

    /// A controller's image, as it is outside.
    pub fn image(&self, index: u8) -> PathBuf {
        self.folder.path().join(format!("image{index}"))
    }

    /// Pulls a controller out: QEMU asks the guest by ACPI, and we agree in its place.
    pub fn unplug(&mut self, index: u8) {
        let id = format!("n{index}");
        self.qmp.run("device_del", &json!({ "id": id }));
        // PIIX4's hot-plug registers: bus, then slots to be given up.
        self.qtest.out(0xae10, 0);
        self.qtest.out(0xae08, 1 << (SLOT + index));
    }

    /// Whether a controller is in its slot.
    pub fn has(&self, index: u8) -> bool {
        self.qtest.has(SLOT + index)
    }

    /// Lets a controller's image be as fast as it can.
    pub fn unthrottle(&mut self, index: u8) {
        let none = json!({
            "device": format!("d{index}"),
            "bps": 0, "bps_rd": 0, "bps_wr": 0, "iops": 0, "iops_rd": 0, "iops_wr": 0,
        });
        self.qmp.run("block_set_io_throttle", &none);
    }

    /// Buffers that controllers see.
    pub fn pool(&self) -> Pool {
        Pool::new(&self.arena, 64 * 1024, 272).unwrap()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // Nobody is to wait for it for ever; it may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// 64 KiB of firmware that does nothing: at the reset vector, `cli` and `hlt`, again and again.
fn halted() -> Vec<u8> {
    let mut firmware = vec![0xf4; 65536];
    firmware[0xfff0..0xfff5].copy_from_slice(&[0xfa, 0xf4, 0xeb, 0xfd, 0x90]);
    firmware
}

/// The only namespace of a controller.
pub fn only(controller: &Controller) -> Arc<dyn Bdev> {
    let mut namespaces = controller.namespaces();
    assert_eq!(namespaces.len(), 1, "{:?}", controller.refused());
    namespaces.remove(0)
}

/// Turns a channel until all requests are done.
pub fn finish(channel: &mut dyn Channel) -> Vec<Completion> {
    let start = Instant::now();
    let mut done = Vec::new();
    while channel.in_flight() > 0 {
        channel.kick();
        channel.poll(Instant::now(), &mut done);
        assert!(start.elapsed() < PATIENCE, "{channel:?} is stuck");
    }
    done
}
