//! What a discovery service knows: the subsystems that can be reached, asked for once.

use std::io;
use std::net::SocketAddr;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use zerocopy::FromBytes;

use super::admin::Admin;
use super::options::TcpOptions;
use crate::initiator::Payload;
use crate::nvme::Nqn;
use crate::nvme::admin::{AdminCommand, GetLogPage};
use crate::nvme::log_page::{DiscoveryEntry, DiscoveryHeader, LogPageId, SubsystemType};

/// Most entries that are read; a service that has more does not mean us.
const MOST: u64 = 1024;

/// Longest that all of it may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Times that a page is read anew which changes while it is read.
const ATTEMPTS: usize = 5;

/// Pause between two looks at the connection.
const STEP: Duration = Duration::from_millis(1);

const HEADER: usize = size_of::<DiscoveryHeader>();
const ENTRY: usize = size_of::<DiscoveryEntry>();

/// Entries of one command: it brings 4096 bytes at most.
const ENTRIES: u64 = 4;

/// A subsystem that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its name.
    pub subsystem: Nqn,
    /// Where it can be reached, in the order in which it was told; at least one.
    pub addresses: Vec<SocketAddr>,
}

/// A discovery service that is being asked.
#[derive(Debug)]
pub struct Discovery(mpsc::Receiver<Result<Vec<Found>, String>>);

impl Discovery {
    /// Begins to ask the service at `address`, as the host that `options` name; the subsystem there
    /// does not matter.
    ///
    /// # Errors
    /// The system has no thread for it.
    pub fn begin(options: &TcpOptions, address: SocketAddr) -> io::Result<Self> {
        let options = TcpOptions {
            subsystem: Nqn::discovery(),
            ..options.clone()
        };
        let (sender, receiver) = mpsc::channel();
        thread::Builder::new()
            .name("nvme_discovery".to_owned())
            .spawn(move || {
                // Who asked may have left.
                let _ = sender.send(ask(&options, address));
            })?;
        Ok(Self(receiver))
    }

    /// What was found, or why nothing was; `None` while the answer is on its way.
    pub fn poll(&self) -> Option<Result<Vec<Found>, String>> {
        match self.0.try_recv() {
            Ok(answer) => Some(answer),
            Err(mpsc::TryRecvError::Empty) => None,
            Err(mpsc::TryRecvError::Disconnected) => Some(Err("there is no answer".to_owned())),
        }
    }
}

fn ask(options: &TcpOptions, address: SocketAddr) -> Result<Vec<Found>, String> {
    let until = Instant::now() + PATIENCE;
    let mut admin = Admin::begin(options, address)?;
    wait(&mut admin, until, |admin| {
        admin.controller.facts().is_some().then_some(())
    })?;
    for _ in 0..ATTEMPTS {
        if let Some(entries) = read(|offset, len| fetch(&mut admin, offset, len, until))? {
            admin.say_goodbye();
            return Ok(gather(&entries, address));
        }
    }
    Err("its discovery log page changes all the time".to_owned())
}

/// All entries; `None` where the page has changed meanwhile. `fetch` gives so many bytes of it from an
/// offset on.
pub(super) fn read(
    mut fetch: impl FnMut(u64, usize) -> Result<Vec<u8>, String>,
) -> Result<Option<Vec<DiscoveryEntry>>, String> {
    let header = |bytes: Vec<u8>| {
        DiscoveryHeader::read_from_bytes(&bytes)
            .map_err(|_| "its discovery log page is too short".to_owned())
    };
    let first = header(fetch(0, HEADER)?)?;
    let count = first.numrec.get();
    if first.recfmt.get() != 0 || count > MOST {
        return Err(format!(
            "its discovery log page has {count} entries in format {}; at most {MOST} in format 0 are read",
            first.recfmt
        ));
    }
    let mut entries = Vec::new();
    while (entries.len() as u64) < count {
        let at = entries.len() as u64;
        let len = (count - at).min(ENTRIES) as usize * ENTRY;
        let bytes = fetch(HEADER as u64 + at * ENTRY as u64, len)?;
        let more = <[DiscoveryEntry]>::ref_from_bytes(&bytes);
        entries.extend_from_slice(more.map_err(|_| "an entry is too short".to_owned())?);
    }
    let unchanged = header(fetch(0, HEADER)?)?.genctr == first.genctr;
    Ok(unchanged.then_some(entries))
}

/// A piece of the page.
fn fetch(admin: &mut Admin, offset: u64, len: usize, until: Instant) -> Result<Vec<u8>, String> {
    let page = GetLogPage {
        lid: LogPageId::Discovery.code(),
        len: len as u64,
        offset,
        ..GetLogPage::default()
    };
    let command = AdminCommand::GetLogPage(page).to_command(0);
    let asked = admin.controller.ask(&command, len, Instant::now());
    asked.map_err(|e| e.to_string())?;
    let done = wait(admin, until, |admin| admin.controller.take_answer())?;
    done.outcome.map_err(|e| e.to_string())?;
    match done.payload {
        Payload::Read(segments) => Ok(segments.iter().flat_map(|s| s.iter().copied()).collect()),
        _ => Err("the discovery log page did not come".to_owned()),
    }
}

/// Goes on until there is what is waited for.
fn wait<T>(
    admin: &mut Admin,
    until: Instant,
    mut look: impl FnMut(&mut Admin) -> Option<T>,
) -> Result<T, String> {
    loop {
        let now = Instant::now();
        admin.turn(now).map_err(|e| e.to_string())?;
        if let Some(found) = look(admin) {
            return Ok(found);
        }
        if now >= until {
            return Err(format!("no answer within {} s", PATIENCE.as_secs()));
        }
        thread::sleep(STEP);
    }
}

/// The subsystems among the entries of the service at `service`, and all addresses of each.
pub(super) fn gather(entries: &[DiscoveryEntry], service: SocketAddr) -> Vec<Found> {
    let mut all: Vec<Found> = Vec::new();
    for entry in entries {
        if entry.subtype != SubsystemType::Nvm.code() {
            continue;
        }
        let (Some(mut address), Ok(subsystem)) = (entry.tcp_address(), entry.subsystem()) else {
            tracing::debug!("{service}: an entry is left out, it is no NVMe/TCP subsystem");
            continue;
        };
        if entry.tsas[0] != 0 {
            tracing::warn!("{service}: {subsystem} at {address} wants TLS, and is left out");
            continue;
        }
        if address.ip().is_unspecified() {
            // Wherever we are talking to.
            address.set_ip(service.ip());
        }
        match all.iter_mut().find(|f| f.subsystem == subsystem) {
            Some(found) if found.addresses.contains(&address) => {}
            Some(found) => found.addresses.push(address),
            None => all.push(Found {
                subsystem,
                addresses: vec![address],
            }),
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subsystems_are_gathered_with_all_their_addresses() {
        let nqn = |name: &str| Nqn::new(&format!("nqn.2026-11.io.stripewise:{name}")).unwrap();
        let at = |text: &str| text.parse::<SocketAddr>().unwrap();
        let entry =
            |name, address| DiscoveryEntry::tcp(SubsystemType::Nvm, &nqn(name), at(address), 1, 32);
        let own = DiscoveryEntry::tcp(
            SubsystemType::CurrentDiscovery,
            &Nqn::discovery(),
            at("192.0.2.1:8009"),
            1,
            32,
        );
        let mut secure = entry("c", "192.0.2.1:4421");
        secure.tsas[0] = 2;
        let mut rdma = entry("d", "192.0.2.1:4422");
        rdma.trtype = 1;
        let mut spoilt = entry("e", "192.0.2.1:4423");
        spoilt.subnqn = [b'x'; 256];
        let entries = [
            own,
            entry("a", "192.0.2.1:4420"),
            entry("b", "0.0.0.0:4420"),
            secure,
            rdma,
            spoilt,
            entry("a", "[2001:db8::1]:4420"),
            entry("a", "192.0.2.1:4420"),
        ];
        let found = gather(&entries, at("192.0.2.9:8009"));
        let expected = [
            ("a", vec![at("192.0.2.1:4420"), at("[2001:db8::1]:4420")]),
            ("b", vec![at("192.0.2.9:4420")]),
        ];
        let expected = expected.map(|(name, addresses)| Found {
            subsystem: nqn(name),
            addresses,
        });
        assert_eq!(found, expected);
    }
}
