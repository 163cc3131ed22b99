//! `scripts/setup` on a machine that is made of files: what it would write to the kernel, and what it refuses.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

/// A machine with NVMe controllers, as `/sys` and `/proc` show one.
struct Machine {
    root: TempDir,
}

const FREE: &str = "0000:01:00.0";
const MOUNTED: &str = "0000:02:00.0";
const IN_MD: &str = "0000:03:00.0";
const POLLED: &str = "0000:04:00.0";

fn put(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
    fs::write(path, text).expect("a file");
}

impl Machine {
    fn new() -> Self {
        let machine = Self {
            root: tempfile::tempdir().expect("a folder"),
        };
        put(&machine.sys("bus/pci/drivers_probe"), "");
        for driver in ["nvme", "vfio-pci"] {
            put(
                &machine.sys(&format!("bus/pci/drivers/{driver}/unbind")),
                "",
            );
        }
        put(
            &machine.sys("kernel/mm/hugepages/hugepages-2048kB/nr_hugepages"),
            "3\n",
        );
        put(
            &machine.path("proc/meminfo"),
            "Hugepagesize:       2048 kB\n",
        );
        put(
            &machine.path("proc/self/mountinfo"),
            "36 35 98:0 / / rw - ext4 /dev/vda rw\n37 36 259:3 / /home/a rw,noatime shared:1 - ext4 /dev/nvme1n1p1 rw\n",
        );
        put(
            &machine.path("proc/swaps"),
            "Filename Type Size Used Priority\n",
        );
        for (number, (bdf, driver)) in [
            (FREE, "nvme"),
            (MOUNTED, "nvme"),
            (IN_MD, "nvme"),
            (POLLED, "vfio-pci"),
        ]
        .into_iter()
        .enumerate()
        {
            machine.controller(number, bdf, driver);
        }
        // A partition of the second, and the third with native multipath.
        put(
            &machine.sys("class/block/nvme1n1/nvme1n1p1/partition"),
            "1\n",
        );
        put(&machine.sys("class/block/nvme1n1p1/dev"), "259:3\n");
        fs::rename(
            machine.device(IN_MD).join("nvme/nvme2/nvme2n1"),
            machine.device(IN_MD).join("nvme/nvme2/nvme2c2n1"),
        )
        .expect("renamed");
        put(&machine.sys("class/block/nvme2n1/holders/md0/uevent"), "");
        // A process that polls the fourth.
        fs::create_dir_all(machine.path("proc/77/fd")).expect("a folder");
        symlink(machine.path("dev/vfio/3"), machine.path("proc/77/fd/9")).expect("a link");
        // Something that is no NVMe controller.
        put(
            &machine.sys("bus/pci/devices/0000:00:02.0/class"),
            "0x030000\n",
        );
        machine
    }

    fn controller(&self, number: usize, bdf: &str, driver: &str) {
        let device = self.device(bdf);
        put(&device.join("class"), "0x010802\n");
        put(&device.join("vendor"), "0x1b36\n");
        put(&device.join("device"), "0x0010\n");
        put(&device.join("driver_override"), "");
        symlink(
            self.sys(&format!("bus/pci/drivers/{driver}")),
            device.join("driver"),
        )
        .expect("a link");
        let group = self.sys(&format!("kernel/iommu_groups/{number}"));
        put(&group.join("type"), "DMA\n");
        symlink(group, device.join("iommu_group")).expect("a link");
        if driver == "nvme" {
            let disk = format!("nvme{number}n1");
            put(
                &device.join(format!("nvme/nvme{number}/{disk}/size")),
                "1\n",
            );
            put(
                &self.sys(&format!("class/block/{disk}/dev")),
                &format!("259:{}\n", 10 * number),
            );
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn sys(&self, name: &str) -> PathBuf {
        self.path("sys").join(name)
    }

    fn device(&self, bdf: &str) -> PathBuf {
        self.sys("bus/pci/devices").join(bdf)
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.sys(name))
            .expect("a file")
            .trim()
            .to_owned()
    }

    fn of(&self, bdf: &str, name: &str) -> String {
        self.read(&format!("bus/pci/devices/{bdf}/{name}"))
    }

    fn setup(&self, words: &[&str], environment: &[(&str, &str)]) -> Output {
        let mut command = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/setup"));
        for (name, folder) in [
            ("SYS", "sys"),
            ("PROC", "proc"),
            ("DEV", "dev"),
            ("STATE", "state"),
        ] {
            command.env(format!("STRIPEWISE_{name}"), self.path(folder));
        }
        command.envs(environment.iter().copied()).args(words);
        command.output().expect("bash")
    }
}

/// What it says, to both.
fn said(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    text(&output.stdout) + &text(&output.stderr)
}

#[test]
fn status_tells_who_uses_what() {
    let machine = Machine::new();
    let output = machine.setup(&["status"], &[]);
    let said = said(&output);
    assert!(output.status.success(), "{said}");
    let line = |bdf| {
        said.lines()
            .position(|line| line.starts_with(bdf))
            .expect("a line")
    };
    let lines: Vec<_> = said.lines().collect();
    assert!(
        lines[line(FREE)].contains("1b36:0010") && lines[line(FREE)].ends_with("nvme0n1"),
        "{said}"
    );
    assert!(!lines[line(FREE) + 1].contains("in use"), "{said}");
    assert!(
        lines[line(MOUNTED) + 1].contains("nvme1n1p1 is mounted at /home/a"),
        "{said}"
    );
    assert!(
        lines[line(IN_MD) + 1].contains("nvme2n1 is part of md0"),
        "{said}"
    );
    assert!(lines[line(POLLED)].contains("vfio-pci"), "{said}");
    assert!(lines[line(POLLED) + 1].contains("process 77"), "{said}");
    assert!(!said.contains("0000:00:02.0"), "{said}");
}

#[test]
fn config_takes_what_nobody_uses_and_sets_huge_pages_aside() {
    let machine = Machine::new();
    let output = machine.setup(&["config"], &[("HUGEMEM", "64")]);
    let said = said(&output);
    assert!(output.status.success(), "{said}");
    assert_eq!(machine.of(FREE, "driver_override"), "vfio-pci");
    assert_eq!(machine.of(FREE, "driver/unbind"), FREE);
    assert_eq!(machine.read("bus/pci/drivers_probe"), FREE);
    for bdf in [MOUNTED, IN_MD, POLLED] {
        assert_eq!(machine.of(bdf, "driver_override"), "");
    }
    assert!(said.contains("0000:02:00.0 is left alone"), "{said}");
    let pages = "kernel/mm/hugepages/hugepages-2048kB/nr_hugepages";
    assert_eq!(machine.read(pages), "32");
    // And back.
    machine.setup(&["reset"], &[]);
    assert_eq!(machine.read(pages), "3");
}

#[test]
fn what_is_named_and_in_use_is_refused_and_nothing_changes() {
    for (bdf, why) in [
        (MOUNTED, "is mounted at /home/a"),
        (IN_MD, "is part of md0"),
    ] {
        let machine = Machine::new();
        let output = machine.setup(&["config", FREE, bdf], &[]);
        assert!(!output.status.success());
        assert!(said(&output).contains(why), "{}", said(&output));
        assert_eq!(machine.of(FREE, "driver_override"), "");
        assert_eq!(
            machine.read("kernel/mm/hugepages/hugepages-2048kB/nr_hugepages"),
            "3"
        );
    }
    let machine = Machine::new();
    let output = machine.setup(&["config", "0000:00:02.0"], &[]);
    assert!(!output.status.success() && said(&output).contains("no NVMe controller"));
}

#[test]
fn lists_of_the_environment_are_kept_to() {
    for (name, value, taken) in [
        ("PCI_BLOCKED", FREE, ""),
        ("PCI_ALLOWED", MOUNTED, ""),
        ("PCI_ALLOWED", FREE, "vfio-pci"),
    ] {
        let machine = Machine::new();
        machine.setup(&["config"], &[(name, value)]);
        assert_eq!(machine.of(FREE, "driver_override"), taken, "{name}={value}");
    }
}

#[test]
fn reset_leaves_alone_what_a_process_polls() {
    let machine = Machine::new();
    let output = machine.setup(&["reset"], &[]);
    assert!(
        said(&output).contains("process 77 uses it"),
        "{}",
        said(&output)
    );
    assert_eq!(machine.read("bus/pci/drivers_probe"), "");
    fs::remove_file(machine.path("proc/77/fd/9")).expect("there");
    machine.setup(&["reset", POLLED], &[]);
    assert_eq!(machine.read("bus/pci/drivers_probe"), POLLED);
    assert_eq!(machine.of(POLLED, "driver/unbind"), POLLED);
}

/// Takes the IOMMU away from a machine: there are groups only where vfio-pci has made one.
fn without_iommu(machine: &Machine) {
    for (group, bdf) in [FREE, MOUNTED, IN_MD].into_iter().enumerate() {
        fs::remove_file(machine.device(bdf).join("iommu_group")).expect("a link");
        fs::remove_dir_all(machine.sys(&format!("kernel/iommu_groups/{group}"))).expect("a group");
    }
    put(&machine.sys("kernel/iommu_groups/3/name"), "vfio-noiommu\n");
    put(&machine.sys("module/vfio/version"), "0.3\n");
}

#[test]
fn without_an_iommu_only_those_who_asked_for_it_are_served() {
    let mode = "module/vfio/parameters/enable_unsafe_noiommu_mode";
    let pages = "kernel/mm/hugepages/hugepages-2048kB/nr_hugepages";
    for (allowed, state, words) in [
        (None, "never", "CONFIG_VFIO_NOIOMMU is not set"),
        (Some("N\n"), "no", "echo 1 >"),
        (Some("Y\n"), "yes", "--iova-mode pa"),
    ] {
        let machine = Machine::new();
        let status = said(&machine.setup(&["status"], &[]));
        assert!(status.contains("IOMMU: on"), "{status}");
        without_iommu(&machine);
        if let Some(allowed) = allowed {
            put(&machine.sys(mode), allowed);
        }
        let status = said(&machine.setup(&["status"], &[]));
        assert!(status.contains("IOMMU: off"), "{status}");
        let line = format!("vfio-pci without it: {state}\n");
        assert!(status.contains(&line), "{status}");
        let output = machine.setup(&["config", FREE], &[("HUGEMEM", "64")]);
        let taken = state == "yes";
        assert_eq!(output.status.success(), taken, "{}", said(&output));
        assert!(said(&output).contains(words), "{}", said(&output));
        let driver = if taken { "vfio-pci" } else { "" };
        assert_eq!(machine.of(FREE, "driver_override"), driver);
        assert_eq!(machine.read(pages), if taken { "32" } else { "3" });
    }
}

#[test]
fn reset_leaves_alone_what_a_process_polls_without_an_iommu() {
    let machine = Machine::new();
    fs::remove_file(machine.path("proc/77/fd/9")).expect("there");
    symlink(
        machine.path("dev/vfio/noiommu-3"),
        machine.path("proc/77/fd/9"),
    )
    .expect("a link");
    let output = machine.setup(&["reset"], &[]);
    assert!(
        said(&output).contains("process 77 uses it"),
        "{}",
        said(&output)
    );
    assert_eq!(machine.read("bus/pci/drivers_probe"), "");
}

#[test]
fn words_that_it_does_not_know_are_refused() {
    let machine = Machine::new();
    for words in [&[][..], &["destroy"]] {
        let output = machine.setup(words, &[]);
        assert_eq!(output.status.code(), Some(2));
        assert!(said(&output).contains("status|config|reset"));
    }
}
