//! One controller: its properties, its admin commands, its keep-alive. A state machine without
//! bytes and without a clock of its own.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::ana::Changes;
use super::command::Need;
use super::counts::Counts;
use super::error_log::{ErrorLog, Failure, Failures};
use super::event_log::{Context, Owner, Page, timestamp};
use super::events::{Events, Notice, Told, TooMany};
use super::feature::{DISCOVERY_FEATURES, Features, IO_FEATURES, Value, data_from_host};
use super::identify::{KEEP_ALIVE_GRANULARITY, Subject};
use super::log_page::{self, DISCOVERY_PAGES, IO_PAGES};
use super::message::{AdminGrant, ReservationNotice};
use super::reservation::{NotificationLog, Wish};
use super::subsystem::SubsystemKind;
use super::tcp::SlotId;
use super::transport::TransportOptions;
use super::view::{DiscoveryView, SubsystemView};
use crate::nvme::admin::{AdminCommand, GetFeatures, GetLogPage, SetFeatures};
use crate::nvme::fabrics::FabricsCommand;
use crate::nvme::feature::{AsyncEventConfiguration, FeatureId, NumberOfQueues};
use crate::nvme::identify::IDENTIFY_SIZE;
use crate::nvme::log_page::{AnaGroup, LogPageId, PersistentLogAction, portion};
use crate::nvme::property::{
    Capabilities, Configuration, ControllerStatus, Property, PropertySize, ReadyTimeouts,
    ShutdownNotification, ShutdownStatus, Version,
};
use crate::nvme::reservation::NotificationType;
use crate::nvme::{Command, Fuse, NSID_ALL, Status};

/// CAP.TO and CRTO: how long a controller may take to become ready, in units of 500 ms. It takes
/// no time at all.
const READY_TIMEOUT: u8 = 30;

/// What is to be told to the host, and what has to be known elsewhere.
#[derive(Debug, Default)]
pub struct Effects {
    /// Commands that are answered.
    pub answers: Vec<Answer>,
    /// The controller was enabled or disabled.
    pub enabled: Option<bool>,
    /// What the control side is to be asked, or told, of the reservations of namespaces: for a
    /// command that is answered then.
    pub reservations: Vec<(SlotId, Vec<u32>, Wish)>,
}

/// The answer to one admin command.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    /// Which command.
    pub slot: SlotId,
    /// How it went.
    pub status: Status,
    /// Dwords 0 and 1 of the completion.
    pub result: u64,
    /// Data for the host; nothing unless it went well.
    pub data: Vec<u8>,
}

impl Answer {
    fn status(slot: SlotId, status: Status) -> Self {
        Self {
            slot,
            status,
            result: 0,
            data: Vec::new(),
        }
    }

    fn told((slot, dword): Told) -> Self {
        Self {
            result: dword.into(),
            ..Self::status(slot, Status::SUCCESS)
        }
    }
}

/// What a command amounts to.
enum Done {
    /// It is done, with a result.
    Result(u64),
    /// It is done, with data.
    Data(Vec<u8>),
    /// It stays here.
    Kept,
}

/// A controller.
#[derive(Debug)]
pub struct Controller {
    grant: AdminGrant,
    options: Arc<TransportOptions>,
    /// Where the host came in.
    local: SocketAddr,
    configuration: Configuration,
    shutdown: ShutdownStatus,
    features: Features,
    events: Events,
    changed_namespaces: BTreeSet<u32>,
    /// How often has changed how namespaces are reached.
    access: Changes,
    notifications: NotificationLog,
    errors: ErrorLog,
    counts: Counts,
    /// What its host reads of the persistent event log.
    event_log: Context,
    keep_alive: Duration,
    /// When the host was last heard.
    heard: Instant,
}

impl Controller {
    /// A new controller, not enabled. `kato_ms` is that of Connect.
    pub fn new(
        grant: AdminGrant,
        options: Arc<TransportOptions>,
        local: SocketAddr,
        kato_ms: u32,
        now: Instant,
    ) -> Self {
        Self {
            features: Features::new(grant.hostid),
            grant,
            options,
            local,
            configuration: Configuration(0),
            shutdown: ShutdownStatus::Normal,
            events: Events::default(),
            changed_namespaces: BTreeSet::new(),
            access: Changes::default(),
            notifications: NotificationLog::default(),
            errors: ErrorLog::default(),
            counts: Counts::default(),
            event_log: Context::default(),
            keep_alive: keep_alive(kato_ms),
            heard: now,
        }
    }

    /// The subsystem.
    pub fn view(&self) -> &Arc<SubsystemView> {
        &self.grant.view
    }

    /// When the host is given up, unless it is heard before; `None` if it may be silent for ever.
    pub fn expires(&self) -> Option<Instant> {
        let patience = match (self.keep_alive, self.grant.view.kind) {
            (Duration::ZERO, SubsystemKind::Nvme) => return None,
            (Duration::ZERO, SubsystemKind::Discovery) => self.options.association_timeout,
            (keep_alive, _) => keep_alive,
        };
        Some(self.heard + patience)
    }

    /// The host was heard by another command than those that are executed here.
    pub fn hear(&mut self, now: Instant) {
        self.heard = now;
    }

    /// How much data a command must come with.
    ///
    /// # Errors
    /// The status of a command that is refused whatever its data.
    pub fn need(&self, command: &Command) -> Result<Need, Status> {
        if command.fuse() != Ok(Fuse::Normal) {
            return Err(Status::INVALID_FIELD.with_do_not_retry());
        }
        if command.is_fabrics() {
            return match FabricsCommand::parse(command)? {
                FabricsCommand::PropertyGet { .. } | FabricsCommand::PropertySet { .. } => {
                    Ok(Need::Nothing)
                }
                // The queue has had its Connect.
                FabricsCommand::Connect(_) => {
                    Err(Status::COMMAND_SEQUENCE_ERROR.with_do_not_retry())
                }
                FabricsCommand::Disconnect { .. } => {
                    Err(Status::INVALID_QUEUE_TYPE.with_do_not_retry())
                }
                FabricsCommand::AuthenticationSend(_)
                | FabricsCommand::AuthenticationReceive(_) => {
                    Err(Status::INVALID_OPCODE.with_do_not_retry())
                }
            };
        }
        if !self.configuration.enabled() {
            return Err(Status::COMMAND_SEQUENCE_ERROR.with_do_not_retry());
        }
        Ok(match AdminCommand::parse(command)? {
            AdminCommand::Identify(_) => Need::ToHost(IDENTIFY_SIZE as u32),
            AdminCommand::GetLogPage(page) if page.len > u64::from(self.options.max_io_size) => {
                return Err(Status::INVALID_FIELD.with_do_not_retry());
            }
            AdminCommand::GetLogPage(page) => Need::ToHost(page.len as u32),
            AdminCommand::SetFeatures(set) => {
                match FeatureId::from_code(set.fid).map(data_from_host) {
                    None | Some(0) => Need::Nothing,
                    Some(len) => Need::PageFromHost(len),
                }
            }
            AdminCommand::GetFeatures(get) => match FeatureId::from_code(get.fid) {
                Some(FeatureId::Timestamp) => Need::ToHost(8),
                Some(FeatureId::HostBehaviorSupport) => Need::ToHost(512),
                Some(FeatureId::HostIdentifier) => Need::ToHost(16),
                _ => Need::Nothing,
            },
            _ => Need::Nothing,
        })
    }

    /// Executes a command that has passed [`Controller::need`] and has its data.
    pub fn execute(
        &mut self,
        slot: SlotId,
        command: &Command,
        data: &[u8],
        outstanding: impl Fn(u16) -> Option<SlotId>,
        now: Instant,
    ) -> Effects {
        self.heard = now;
        let mut effects = Effects::default();
        let done = if command.is_fabrics() {
            self.fabrics(command, &mut effects)
        } else {
            self.admin(slot, command, data, outstanding, &mut effects, now)
        };
        match done {
            Ok(Done::Kept) => {}
            Ok(Done::Result(result)) => effects.answers.push(Answer {
                result,
                ..Answer::status(slot, Status::SUCCESS)
            }),
            Ok(Done::Data(data)) => effects.answers.push(Answer {
                data,
                ..Answer::status(slot, Status::SUCCESS)
            }),
            Err(status) => {
                self.failed(Failure::of_admin(command, status));
                effects.answers.push(Answer::status(slot, status));
            }
        }
        effects
    }

    /// One of its admin commands has failed.
    pub fn failed(&mut self, failure: Failure) {
        self.errors.note(&failure);
    }

    /// Its I/O queues have moved something.
    pub fn add_counts(&mut self, counts: &Counts) {
        self.counts.add(counts);
    }

    /// Commands of its I/O queues have failed.
    pub fn add_failures(&mut self, failures: &Failures) {
        self.errors.add(failures);
    }

    fn fabrics(&mut self, command: &Command, effects: &mut Effects) -> Result<Done, Status> {
        let invalid_field = Status::INVALID_FIELD.with_do_not_retry();
        match FabricsCommand::parse(command)? {
            FabricsCommand::PropertyGet { size, offset } => {
                let property = Property::from_code(offset).filter(|p| p.size() == size);
                let property = property.ok_or(invalid_field)?;
                self.property(property).map(Done::Result)
            }
            FabricsCommand::PropertySet {
                size,
                offset,
                value,
            } => match Property::from_code(offset) {
                Some(Property::Configuration) if size == PropertySize::Four => {
                    self.configure(Configuration(value as u32), effects)?;
                    Ok(Done::Result(0))
                }
                _ => Err(invalid_field),
            },
            _ => Err(Status::INVALID_OPCODE.with_do_not_retry()),
        }
    }

    fn property(&self, property: Property) -> Result<u64, Status> {
        Ok(match property {
            Property::Capabilities => Capabilities {
                max_queue_entries: self.options.max_queue_depth - 1,
                contiguous_queues: true,
                timeout: READY_TIMEOUT,
                doorbell_stride: 0,
                subsystem_reset: false,
                command_sets: Capabilities::CSS_NVM | Capabilities::CSS_IO_COMMAND_SETS,
                min_page_size: 0,
                max_page_size: 0,
                ready_with_media: true,
                ready_independent_of_media: false,
            }
            .value(),
            Property::Version => Version::V2_0.value().into(),
            Property::Configuration => self.configuration.0.into(),
            Property::Status => ControllerStatus {
                ready: self.configuration.enabled(),
                fatal: false,
                shutdown: self.shutdown,
                subsystem_reset: false,
                paused: false,
            }
            .value()
            .into(),
            Property::ReadyTimeouts => ReadyTimeouts {
                with_media: READY_TIMEOUT.into(),
                independent_of_media: 0,
            }
            .value()
            .into(),
            _ => return Err(Status::INVALID_FIELD.with_do_not_retry()),
        })
    }

    /// The host writes CC.
    fn configure(
        &mut self,
        configuration: Configuration,
        effects: &mut Effects,
    ) -> Result<(), Status> {
        let sizes = [
            (configuration.submission_entry_size(), 6),
            (configuration.completion_entry_size(), 4),
        ];
        let fits = configuration.page_size() == 0
            && configuration.arbitration() == 0
            && matches!(configuration.command_set(), 0b000 | 0b110)
            && sizes.iter().all(|&(size, only)| size == 0 || size == only);
        let Some(shutdown) = configuration.shutdown().filter(|_| fits) else {
            return Err(Status::INVALID_FIELD.with_do_not_retry());
        };
        let before = self.configuration;
        self.configuration = configuration;
        if shutdown != ShutdownNotification::None {
            self.shutdown = ShutdownStatus::Complete;
        } else if configuration.enabled() && !before.enabled() {
            self.shutdown = ShutdownStatus::Normal;
        }
        if configuration.enabled() != before.enabled() {
            effects.enabled = Some(configuration.enabled());
        }
        if before.enabled() && !configuration.enabled() {
            self.reset(effects);
        }
        Ok(())
    }

    /// All is as it was before the controller was first enabled. Requests that the host has left
    /// end, so that their identifiers are free again.
    fn reset(&mut self, effects: &mut Effects) {
        let kept = self.events.reset();
        let aborted = kept.into_iter();
        effects
            .answers
            .extend(aborted.map(|slot| Answer::status(slot, Status::ABORTED_SQ_DELETION)));
        self.features = Features::new(self.grant.hostid);
        self.changed_namespaces.clear();
        self.access = Changes::default();
        self.notifications = NotificationLog::default();
        self.event_log.reset();
    }

    fn admin(
        &mut self,
        slot: SlotId,
        command: &Command,
        data: &[u8],
        outstanding: impl Fn(u16) -> Option<SlotId>,
        effects: &mut Effects,
        now: Instant,
    ) -> Result<Done, Status> {
        let discovery = self.grant.view.kind == SubsystemKind::Discovery;
        match AdminCommand::parse(command)? {
            AdminCommand::Identify(identify) => {
                let subject = Subject {
                    view: &self.grant.view,
                    options: &self.options,
                    cntlid: self.grant.cntlid,
                    retry_delays: self.grant.retry_delays,
                };
                let nsid = command.nsid.get();
                subject.answer(&identify, nsid).map(Done::Data)
            }
            AdminCommand::GetLogPage(page) => self.log_page(&page, effects, now).map(Done::Data),
            AdminCommand::SetFeatures(SetFeatures { fid, .. })
            | AdminCommand::GetFeatures(GetFeatures { fid, .. })
                if !discovery && is_of_reservations(fid) =>
            {
                self.reservation_feature(slot, command, effects)
            }
            AdminCommand::SetFeatures(set) => self.set_feature(&set, data, now).map(Done::Result),
            AdminCommand::GetFeatures(get) => self.get_feature(&get, now),
            AdminCommand::KeepAlive => Ok(Done::Result(0)),
            AdminCommand::AsyncEventRequest => match self.events.request(slot) {
                Ok(told) => {
                    effects.answers.extend(told.map(Answer::told));
                    Ok(Done::Kept)
                }
                Err(TooMany) => Err(Status::AER_LIMIT_EXCEEDED.with_do_not_retry()),
            },
            AdminCommand::Abort { .. } if discovery => {
                Err(Status::INVALID_OPCODE.with_do_not_retry())
            }
            // All admin commands but these requests are over at once, and I/O commands are with
            // the devices: there is nothing else to abort.
            AdminCommand::Abort { sqid, cid } => {
                let request = outstanding(cid).filter(|_| sqid == 0);
                let aborted = request.filter(|&slot| self.events.abort(slot));
                let answer = aborted.map(|slot| Answer::status(slot, Status::ABORT_REQUESTED));
                let not_aborted = u64::from(answer.is_none());
                effects.answers.extend(answer);
                Ok(Done::Result(not_aborted))
            }
        }
    }

    fn log_page(
        &mut self,
        page: &GetLogPage,
        effects: &mut Effects,
        now: Instant,
    ) -> Result<Vec<u8>, Status> {
        let discovery = self.grant.view.kind == SubsystemKind::Discovery;
        let mut pages = if discovery { DISCOVERY_PAGES } else { IO_PAGES }.to_vec();
        if self.grant.view.reaches.is_some() {
            pages.push(LogPageId::Ana);
        }
        if self.grant.view.event_log.is_some() {
            pages.push(LogPageId::PersistentEvents);
        }
        let lid = LogPageId::from_code(page.lid).filter(|lid| pages.contains(lid));
        let lid = lid.ok_or(Status::INVALID_LOG_PAGE.with_do_not_retry())?;
        if page.by_index {
            return Err(Status::INVALID_FIELD.with_do_not_retry());
        }
        let content = match lid {
            LogPageId::SupportedLogPages => log_page::supported(&pages),
            LogPageId::ErrorInformation => self.errors.page(),
            LogPageId::Health => {
                let log = self.grant.view.event_log.as_ref();
                let lifetime = log.map(|log| &log.lifetime);
                log_page::health(self.errors.count(), &self.counts, lifetime, now).to_vec()
            }
            LogPageId::PersistentEvents => return self.persistent_events(page, now),
            LogPageId::FirmwareSlots => log_page::firmware(),
            LogPageId::ChangedNamespaces => {
                log_page::changed_namespaces(self.changed_namespaces.iter().copied())
            }
            LogPageId::CommandEffects => log_page::commands(),
            LogPageId::FeatureEffects => log_page::features(self.feature_list()),
            LogPageId::MiEffects => log_page::management(),
            LogPageId::Discovery => {
                log_page::discovery(&self.grant.discovery, &self.grant.hostnqn, self.local)
            }
            LogPageId::Ana => {
                let groups_only = page.lsp & AnaGroup::LSP_GROUPS_ONLY != 0;
                self.access.log(&self.grant.view, groups_only)
            }
            LogPageId::ReservationNotification => self.notifications.page(),
        };
        let portion = portion(&content, page.offset, page.len);
        let portion = portion.ok_or(Status::INVALID_FIELD.with_do_not_retry())?;
        let mut data = portion.to_vec();
        data.resize(page.len as usize, 0);
        if !page.retain_event {
            let told = match lid {
                LogPageId::ChangedNamespaces => {
                    self.changed_namespaces.clear();
                    self.events.read(Notice::Namespaces)
                }
                LogPageId::Ana => self.events.read(Notice::Access),
                LogPageId::Discovery => self.events.read(Notice::DiscoveryLog),
                LogPageId::ReservationNotification => {
                    let told = self.events.read(Notice::Reservation);
                    effects.answers.extend(told.map(Answer::told));
                    match self.notifications.read() {
                        true => self.events.happened(Notice::Reservation),
                        false => None,
                    }
                }
                _ => None,
            };
            effects.answers.extend(told.map(Answer::told));
        }
        Ok(data)
    }

    /// Page 0Dh, as it was when the host began to read it.
    fn persistent_events(&mut self, page: &GetLogPage, now: Instant) -> Result<Vec<u8>, Status> {
        let view = &self.grant.view;
        let log = view.event_log.as_ref();
        let log = log.ok_or(Status::INVALID_LOG_PAGE.with_do_not_retry())?;
        let owner = Owner {
            nqn: &view.nqn,
            serial: &view.serial,
            model: &view.model,
        };
        let action = PersistentLogAction::of_lsp(page.lsp);
        // Different for controllers that follow one another, too.
        let first = self.grant.cntlid << 8;
        let read = self.event_log.act(action, |number| {
            Page::new(log, &owner, first.wrapping_add(number), timestamp(), now)
        })?;
        let Some(read) = read else {
            return Ok(Vec::new());
        };
        let portion = read.portion(page.offset, page.len);
        let mut data = portion.ok_or(Status::INVALID_FIELD.with_do_not_retry())?;
        data.resize(page.len as usize, 0);
        Ok(data)
    }

    fn feature_list(&self) -> &'static [FeatureId] {
        match self.grant.view.kind {
            SubsystemKind::Discovery => DISCOVERY_FEATURES,
            SubsystemKind::Nvme => IO_FEATURES,
        }
    }

    fn feature(&self, fid: u8) -> Result<FeatureId, Status> {
        let feature = FeatureId::from_code(fid).filter(|f| self.feature_list().contains(f));
        feature.ok_or(Status::INVALID_FIELD.with_do_not_retry())
    }

    fn set_feature(&mut self, set: &SetFeatures, data: &[u8], now: Instant) -> Result<u64, Status> {
        let feature = self.feature(set.fid)?;
        if set.save {
            return Err(Status::FEATURE_NOT_SAVEABLE.with_do_not_retry());
        }
        match feature {
            FeatureId::NumberOfQueues => {
                NumberOfQueues::from_dword(set.value)?;
                return Ok(self.queues().into());
            }
            FeatureId::AsyncEventConfiguration => {
                self.events.configure(AsyncEventConfiguration(set.value));
            }
            FeatureId::KeepAliveTimer => self.keep_alive = keep_alive(set.value),
            other => self.features.set(other, set.value, data, now)?,
        }
        Ok(0)
    }

    fn get_feature(&self, get: &GetFeatures, now: Instant) -> Result<Done, Status> {
        let feature = self.feature(get.fid)?;
        Ok(match feature {
            FeatureId::NumberOfQueues => Done::Result(self.queues().into()),
            FeatureId::AsyncEventConfiguration => {
                Done::Result(self.events.configuration().0.into())
            }
            FeatureId::KeepAliveTimer => Done::Result(self.keep_alive.as_millis() as u64),
            other => match self.features.get(other, get.value, now)? {
                Value::Dword(dword) => Done::Result(dword.into()),
                Value::Data(data) => Done::Data(data),
            },
        })
    }

    /// Features 82h and 83h, which are of a namespace.
    fn reservation_feature(
        &mut self,
        slot: SlotId,
        command: &Command,
        effects: &mut Effects,
    ) -> Result<Done, Status> {
        let nsid = command.nsid.get();
        let known = self.grant.view.namespace(nsid).is_some();
        let invalid_field = Status::INVALID_FIELD.with_do_not_retry();
        let parsed = AdminCommand::parse(command)?;
        let set = match parsed {
            AdminCommand::SetFeatures(set) if set.save => {
                return Err(Status::FEATURE_NOT_SAVEABLE.with_do_not_retry());
            }
            AdminCommand::SetFeatures(set) => Some(set.value),
            // There is no such thing as the value of all namespaces.
            _ if nsid == NSID_ALL => return Err(invalid_field),
            _ => None,
        };
        if !known && nsid != NSID_ALL {
            return Err(Status::INVALID_NAMESPACE_OR_FORMAT.with_do_not_retry());
        }
        let mask = command.cdw10.get() & 0xff == FeatureId::ReservationNotificationMask as u32;
        match set {
            None if mask => Ok(Done::Result(self.notifications.mask(nsid).into())),
            Some(value) if mask => {
                if value & !NotificationType::MASKS != 0 {
                    return Err(invalid_field);
                }
                let named = self.grant.view.active().map(|n| n.nsid);
                let named = named.filter(|&n| nsid == NSID_ALL || n == nsid);
                for nsid in named {
                    self.notifications.set_mask(nsid, value);
                }
                Ok(Done::Result(0))
            }
            Some(value) if value > 1 => Err(invalid_field),
            set => {
                let wish = set.map_or(Wish::Persistence, |v| Wish::SetPersistence(v == 1));
                let nsids = match nsid {
                    NSID_ALL => {
                        let active = self.grant.view.active();
                        active.filter(|n| n.persists).map(|n| n.nsid).collect()
                    }
                    nsid => vec![nsid],
                };
                effects.reservations.push((slot, nsids, wish));
                Ok(Done::Kept)
            }
        }
    }

    /// Something has happened to a reservation.
    pub fn notice_reservation(&mut self, notice: &ReservationNotice) -> Effects {
        let mut effects = Effects::default();
        if notice.hosts.contains(&self.grant.hostid)
            && self.configuration.enabled()
            && self.notifications.note(notice.nsid, notice.kind)
        {
            let told = self.events.happened(Notice::Reservation);
            effects.answers.extend(told.map(Answer::told));
        }
        effects
    }

    /// Dword 0 of Number of Queues: as many as there may be, whatever the host asks for.
    fn queues(&self) -> u32 {
        let count = self.options.max_io_qpairs_per_ctrlr;
        NumberOfQueues {
            submission: count,
            completion: count,
        }
        .dword()
    }

    /// The subsystem has changed.
    pub fn set_view(&mut self, view: Arc<SubsystemView>) -> Effects {
        let before = std::mem::replace(&mut self.grant.view, view);
        let changed = self.grant.view.changed_since(&before);
        let mut effects = Effects::default();
        let gone = |nsid: &&u32| self.grant.view.namespace(**nsid).is_none();
        for nsid in changed.iter().filter(gone) {
            self.notifications.forget(*nsid);
        }
        if !changed.is_empty() {
            self.changed_namespaces.extend(changed);
            let told = self.events.happened(Notice::Namespaces);
            effects.answers.extend(told.map(Answer::told));
        }
        if self.access.note(&before, &self.grant.view) {
            let told = self.events.happened(Notice::Access);
            effects.answers.extend(told.map(Answer::told));
        }
        effects
    }

    /// The discovery log has changed.
    pub fn set_discovery(&mut self, view: Arc<DiscoveryView>) -> Effects {
        let content =
            |view: &DiscoveryView| log_page::discovery(view, &self.grant.hostnqn, self.local);
        // What this host sees may be the same, but for the generation in the first 8 bytes.
        let changed = content(&view)[8..] != content(&self.grant.discovery)[8..];
        self.grant.discovery = view;
        let mut effects = Effects::default();
        if changed && self.grant.view.kind == SubsystemKind::Discovery {
            let told = self.events.happened(Notice::DiscoveryLog);
            effects.answers.extend(told.map(Answer::told));
        }
        effects
    }
}

/// Whether a feature is of a namespace's reservation.
fn is_of_reservations(fid: u8) -> bool {
    matches!(
        FeatureId::from_code(fid),
        Some(FeatureId::ReservationNotificationMask | FeatureId::ReservationPersistence)
    )
}

/// A keep-alive timeout, rounded up to what Identify says the timer can do.
fn keep_alive(kato_ms: u32) -> Duration {
    let granularity = u64::from(KEEP_ALIVE_GRANULARITY) * 100;
    Duration::from_millis(u64::from(kato_ms).next_multiple_of(granularity))
}
