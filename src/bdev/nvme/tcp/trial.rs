//! Controllers and discovery services that say of themselves what some bytes say: what property tests
//! and fuzz targets share. See [`crate::initiator::trial`].

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use zerocopy::{FromBytes, IntoBytes};

use super::discovery::{gather, read};
use super::keeper::max_transfer;
use super::link::Link;
use super::namespace::TcpNamespace;
use super::options::{Recovery, TcpOptions};
use crate::bdev::Bdev;
use crate::initiator::trial::Choices;
use crate::initiator::{Controller, ControllerSettings, Done, Facts, Payload};
use crate::nvme::admin::{AdminCommand, GetLogPage};
use crate::nvme::fabrics::{ConnectResult, FabricsCommand};
use crate::nvme::feature::{FeatureId, NumberOfQueues};
use crate::nvme::identify::{Cns, IdentifyController, IdentifyNamespace, NamespaceList};
use crate::nvme::log_page::{Health, LogPageId};
use crate::nvme::property::{Capabilities, ControllerStatus, Property, Version};
use crate::nvme::tcp::{
    C2hData, CapsuleResp, Decoder, Event, FromHost, HostPdu, IcResp, PduFormat, Rules, Wanted,
};
use crate::nvme::{Command, Completion, NSID_MAX, Nqn, Status};

/// Turns in which every bring-up has ended that is not held up: one for each namespace, the patience
/// with a command that is not answered, and some to spare.
const TURNS: usize = 2000;

/// Brings an association up with a controller whose answers are what the bytes say, makes devices of
/// what it has, and asks for its log pages.
///
/// # Panics
/// Where it does not end, or something is taken that cannot be worked with.
pub fn association(input: &[u8]) {
    let mut choices = Choices::new(input);
    let options = options(choices.u8() & 1 != 0);
    let mut now = Instant::now();
    let settings = ControllerSettings {
        subsystem: options.subsystem.clone(),
        host: options.host.clone(),
        host_id: options.host_id,
        header_digest: false,
        data_digest: false,
        keep_alive: options.keep_alive,
        patience: options.admin_timeout,
        io_queues: options.io_queues,
        namespace: None,
        events: true,
    };
    let mut controller = Controller::new(settings, now).expect("memory");
    let mut target = Target {
        choices,
        decoder: Decoder::new(),
        command: None,
        answers: Vec::new(),
    };
    let mut pages = vec![
        (LogPageId::Health, size_of::<Health>()),
        (LogPageId::ChangedNamespaces, 4096),
    ];
    let mut checked = false;
    // Each byte may hold it up once.
    for _ in 0..TURNS + input.len() {
        now += Duration::from_millis(10);
        let mut done = Vec::new();
        let Ok(moved) = turn(&mut controller, &mut target, &mut done, now) else {
            return;
        };
        controller.next_event();
        let Some(facts) = controller.facts() else {
            continue;
        };
        if !std::mem::replace(&mut checked, true) {
            check(&options, facts);
            check_queues(&controller);
        } else if let Some(answer) = controller.take_answer() {
            look_at(answer);
        }
        // Refused while an answer is on its way.
        if let Some(&(page, len)) = pages.last() {
            let page = GetLogPage::new(page.code(), len as u64);
            let command = AdminCommand::GetLogPage(page).to_command(0);
            if controller.ask(&command, len, now).is_ok() {
                pages.pop();
            }
        } else if !moved {
            return;
        }
    }
    panic!("no end in sight");
}

/// Reads a discovery log page of these bytes, and what it names.
///
/// # Panics
/// Where what is found cannot be worked with.
pub fn discovery(input: &[u8]) {
    let mut choices = Choices::new(input);
    // The page is another one from this read on.
    let changes = choices.u8();
    let page = choices.bytes(usize::MAX);
    let mut reads = 0;
    let entries = read(|offset, len| {
        reads += 1;
        assert!(reads <= 300 && len <= 4096, "reads are bounded");
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let start = start.min(page.len());
        let mut piece = page[start..page.len().min(start + len)].to_vec();
        piece.resize(len, 0);
        if reads == u16::from(changes) {
            piece[0] ^= 1;
        }
        Ok(piece)
    });
    let service = SocketAddr::from((Ipv4Addr::LOCALHOST, 8009));
    if let Ok(Some(entries)) = entries {
        let found = gather(&entries, service);
        let addresses: usize = found.iter().map(|f| f.addresses.len()).sum();
        assert!(addresses <= entries.len());
        for found in &found {
            let is_known = |address: &SocketAddr| !address.ip().is_unspecified();
            assert!(!found.addresses.is_empty() && found.addresses.iter().all(is_known));
        }
    }
}

fn options(discovery: bool) -> TcpOptions {
    let name = |name: &str| Nqn::new(name).expect("a name");
    TcpOptions {
        subsystem: match discovery {
            true => Nqn::discovery(),
            false => name("nqn.2026-11.io.stripewise:test"),
        },
        host: name("nqn.2026-11.io.stripewise:host"),
        host_id: [1; 16],
        header_digest: false,
        data_digest: false,
        keep_alive: Duration::from_secs(10),
        io_timeout: Duration::from_secs(10),
        // Nothing here is waited for; whoever gives no answer is found out by the number of turns.
        admin_timeout: Duration::from_secs(5),
        queue_depth: 32,
        io_queues: 4,
        recovery: Recovery::default(),
    }
}

/// Moves all bytes there and back, and lets the controller do what follows. Says whether there were any.
fn turn(
    controller: &mut Controller,
    target: &mut Target<'_>,
    done: &mut Vec<Done>,
    now: Instant,
) -> Result<bool, ()> {
    let queue = controller.queue_mut();
    let mut sent = Vec::new();
    while queue.has_output() {
        queue.transmit(done, |slices| {
            let before = sent.len();
            slices
                .iter()
                .for_each(|slice| sent.extend_from_slice(slice));
            sent.len() - before
        });
    }
    target.hear(&sent);
    let answers = std::mem::take(&mut target.answers);
    let mut left = &answers[..];
    while !left.is_empty() {
        let given = queue.receive(done, now, |slices| {
            let mut count = 0;
            for slice in slices {
                let some = slice.len().min(left.len() - count);
                slice[..some].copy_from_slice(&left[count..count + some]);
                count += some;
            }
            count
        });
        left = &left[given.map_err(drop)?..];
    }
    controller.advance(done, now).map_err(drop)?;
    Ok(!sent.is_empty())
}

/// What is known of a controller can be worked with.
fn check(options: &TcpOptions, facts: &Facts) {
    let most = max_transfer(facts);
    assert!((8192..=1 << 20).contains(&most), "{most} bytes at once");
    let link = Arc::new(Link::new(1).expect("an eventfd"));
    let ids: Vec<u32> = facts.namespaces.iter().map(|n| n.id).collect();
    assert!(ids.is_sorted_by(|a, b| a < b), "{ids:?}");
    assert!(ids.iter().all(|&id| id > 0 && id <= NSID_MAX), "{ids:?}");
    for namespace in &facts.namespaces {
        let Ok(device) = TcpNamespace::new("N", options, &link, facts, namespace) else {
            continue;
        };
        let info = device.info();
        assert!(matches!(info.block_size, 512 | 4096));
        let bytes = u128::from(info.blocks) * u128::from(info.block_size);
        assert!(bytes > 0 && bytes < 1 << 63);
        assert!(info.max_blocks > 0 && info.max_blocks * info.block_size <= most);
    }
}

/// Its queues can be made.
fn check_queues(controller: &Controller) {
    let most = controller.max_depth().expect("it is ready");
    if most > 0 {
        assert!(controller.io_settings(1, most).is_ok());
    }
    assert!(most == u16::MAX || controller.io_settings(1, most + 1).is_err());
}

/// A log page has come, whole.
fn look_at(answer: Done) {
    if answer.outcome.is_err() {
        return;
    }
    let Payload::Read(segments) = answer.payload else {
        panic!("a page comes in the buffer that it was asked for with");
    };
    let bytes: Vec<u8> = segments.iter().flat_map(|s| s.to_vec()).collect();
    match bytes.len() {
        4096 => drop(NamespaceList::ref_from_bytes(&bytes).expect("a page")),
        _ => drop(Health::ref_from_bytes(&bytes).expect("a page")),
    }
}

/// The controller.
struct Target<'c> {
    choices: Choices<'c>,
    decoder: Decoder<FromHost>,
    /// The command whose data is on its way.
    command: Option<Command>,
    answers: Vec<u8>,
}

impl Target<'_> {
    fn hear(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if let Wanted::Payload(left) = self.decoder.wanted() {
                let (piece, rest) = bytes.split_at(bytes.len().min(left as usize));
                bytes = rest;
                if self.decoder.payload(piece).is_some() {
                    let command = self.command.take();
                    self.answer(&command.expect("its header came before"));
                }
                continue;
            }
            let fed = self.decoder.feed(bytes).expect("the host knows PDUs");
            bytes = &bytes[fed.used..];
            match fed.event {
                Some(Event::Pdu { pdu, payload }) => match pdu {
                    HostPdu::IcReq(_) => self.greet(),
                    HostPdu::CapsuleCmd(capsule) if payload == 0 => self.answer(&capsule.command),
                    HostPdu::CapsuleCmd(capsule) => self.command = Some(capsule.command),
                    // It has given us up.
                    HostPdu::TermReq(_) => return,
                    HostPdu::H2cData(_) => panic!("nobody asked for data"),
                },
                Some(Event::PayloadEnd(_)) => panic!("there are no digests"),
                None => {}
            }
        }
    }

    fn greet(&mut self) {
        let response = IcResp {
            alignment: Default::default(),
            header_digest: false,
            data_digest: false,
            max_h2c_data: 131_072,
        };
        self.answers.extend_from_slice(&response.encode());
        self.decoder.establish(Rules {
            format: PduFormat::default(),
            max_capsule_data: 8192,
            max_data: 131_072,
        });
    }

    /// Answers as a good controller, or as the bytes say.
    fn answer(&mut self, command: &Command) {
        let how = self.choices.u8();
        let opcode = command.opcode;
        let parsed = AdminCommand::parse(command);
        let mut completion = Completion::new(command.cid.get(), Status::SUCCESS);
        if matches!(parsed, Ok(AdminCommand::AsyncEventRequest)) {
            if how & 1 != 0 {
                let result = self.choices.u32();
                self.complete(completion.with_result(result));
            }
            return;
        }
        if how == 255 {
            let status = Status::from_field(self.choices.u16());
            return self.complete(Completion::new(command.cid.get(), status));
        }
        if command.is_fabrics() {
            let good = self.property(command);
            let result = match how & 1 {
                0 => good,
                _ => self.choices.u64(),
            };
            return self.complete(completion.with_result64(result));
        }
        let page = match parsed {
            Ok(AdminCommand::Identify(identify)) => match Cns::from_code(identify.cns) {
                Some(Cns::Controller) => good_controller().as_bytes().to_vec(),
                Some(Cns::ActiveNamespaces) => NamespaceList::from_ids([1, 3]).as_bytes().to_vec(),
                Some(Cns::Namespace) => IdentifyNamespace::new(1000, 12).as_bytes().to_vec(),
                other => panic!("nobody needs {other:?}"),
            },
            Ok(AdminCommand::GetLogPage(page)) => vec![0; page.len as usize],
            Ok(AdminCommand::SetFeatures(set)) => {
                let good = match set.fid == FeatureId::NumberOfQueues.code() {
                    true => NumberOfQueues::from_dword(set.value).map_or(0, |n| n.dword()),
                    false => 0,
                };
                let result = match how & 1 {
                    0 => good,
                    _ => self.choices.u32(),
                };
                completion = completion.with_result(result);
                Vec::new()
            }
            Ok(AdminCommand::KeepAlive) => Vec::new(),
            other => panic!("nobody needs {opcode:#x}: {other:?}"),
        };
        if !page.is_empty() {
            let page = self.page(page, how);
            let header = C2hData {
                cccid: command.cid.get(),
                offset: 0,
                len: page.len() as u32,
                last: true,
                success: how & 0x80 != 0,
            };
            let format = PduFormat::default();
            self.answers.extend_from_slice(&header.encode(&format));
            self.answers.extend_from_slice(&page);
            if header.success {
                return;
            }
        }
        self.complete(completion);
    }

    /// What a good controller answers to a fabrics command.
    fn property(&self, command: &Command) -> u64 {
        match FabricsCommand::parse(command) {
            Ok(FabricsCommand::Connect(_)) => {
                let result = ConnectResult {
                    cntlid: 7,
                    authentication_required: false,
                    secure_channel_required: false,
                };
                result.dword().into()
            }
            Ok(FabricsCommand::PropertyGet { offset, .. }) => match Property::from_code(offset) {
                Some(Property::Capabilities) => {
                    let capabilities = Capabilities {
                        max_queue_entries: 127,
                        timeout: 1,
                        command_sets: Capabilities::CSS_NVM,
                        ..Capabilities::from_value(0)
                    };
                    capabilities.value()
                }
                Some(Property::Version) => Version::V2_0.value().into(),
                _ => {
                    let ready = ControllerStatus {
                        ready: true,
                        ..ControllerStatus::from_value(0)
                    };
                    ready.value().into()
                }
            },
            _ => 0,
        }
    }

    /// A structure as it should be, with changes, or something else altogether; and perhaps less of it.
    fn page(&mut self, good: Vec<u8>, how: u8) -> Vec<u8> {
        let len = good.len();
        let mut page = good;
        match how & 7 {
            0 => {}
            1..=3 => {
                for _ in 0..=(how >> 3 & 15) {
                    let (at, byte) = (usize::from(self.choices.u16()), self.choices.u8());
                    page[at % len] ^= byte;
                }
            }
            4 | 5 => {
                page.fill(0);
                let bytes = self.choices.bytes(len);
                page[..bytes.len()].copy_from_slice(bytes);
            }
            6 => page.fill(self.choices.u8()),
            _ => page.truncate(usize::from(self.choices.u16()) % len + 1),
        }
        page
    }

    fn complete(&mut self, completion: Completion) {
        let capsule = CapsuleResp { completion };
        let bytes = capsule.encode(&PduFormat::default());
        self.answers.extend_from_slice(&bytes);
    }
}

fn good_controller() -> IdentifyController {
    let mut identify = IdentifyController::new();
    identify.cntlid = 7.into();
    identify.mdts = 5;
    identify.ioccsz = 516.into();
    identify.iorcsz = 1.into();
    identify.kas = 10.into();
    identify.oncs = IdentifyController::ONCS_WRITE_ZEROES.into();
    identify.sgls = (IdentifyController::SGLS_SUPPORTED | IdentifyController::SGLS_OFFSET).into();
    identify
}
