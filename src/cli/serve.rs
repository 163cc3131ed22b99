//! `stripewise serve`.

use std::io::{self, Write};
use std::path::PathBuf;

use super::banner;
use crate::bdev::nvme::pcie::vfio::IovaMode;
use crate::control::LogSwitch;
use crate::reactor::{CoreMask, IdlePolicy};
use crate::rpc::Address;
use crate::serve::{self, Config, Options, ServeError, Source};

/// Where a serving process listens for RPC clients, unless told otherwise.
pub const DEFAULT_SOCKET: &str = "/var/tmp/stripewise.sock";

/// The arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What to serve: calls of the RPC in the form that SPDK's save_config writes.
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The cores to run on: a hexadecimal mask (0x3) or a list ([0,2-3]).
    #[arg(short = 'm', long, value_name = "MASK", default_value = "0x1")]
    cores: CoreMask,
    /// Where to take RPC: a UNIX socket, or IP or IP:PORT for TCP (5260). DANGER: over TCP whoever reaches it
    /// may do everything.
    #[arg(short, long, value_name = "SOCKET", default_value = DEFAULT_SOCKET, value_parser = address)]
    rpc_socket: Address,
    /// What cores do when there is nothing to do: sleep after a while, or spin for ever.
    #[arg(long, value_enum, default_value_t = Idle::Adaptive)]
    idle: Idle,
    /// Memory to set aside for payload and stripes, in MiB [default: what suits the machine]
    #[arg(short = 's', long = "mem", value_name = "MIB")]
    memory: Option<u64>,
    /// Take the memory from DPDK's environment.
    #[cfg(feature = "dpdk")]
    #[arg(long)]
    dpdk: bool,
    /// Addresses that PCIe controllers are given: va, which an IOMMU translates, or pa, physical ones, where there is no
    /// IOMMU. DANGER: with pa a fault of a controller or of this program can overwrite any memory of the machine.
    #[arg(long, value_enum, value_name = "MODE", default_value_t = Iova::Va)]
    iova_mode: Iova,
    /// Leave the start to framework_start_init.
    #[arg(long)]
    wait_for_rpc: bool,
    /// Go on when calls of the configuration fail: a disk that is dead must not keep the others
    /// from being served.
    #[arg(long)]
    json_ignore_init_errors: bool,
}

/// Every text is an address.
pub(super) fn address(text: &str) -> Result<Address, std::convert::Infallible> {
    Ok(text.into())
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Idle {
    Adaptive,
    Busy,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Iova {
    Va,
    Pa,
}

impl Args {
    /// Serves until a signal asks for the end.
    ///
    /// # Errors
    /// [`ServeError`].
    pub fn run(self, log: LogSwitch) -> Result<(), ServeError> {
        let config = self.config.as_deref().map(Config::read).transpose()?;
        #[cfg(feature = "dpdk")]
        let source = match self.dpdk {
            true => Source::Dpdk,
            false => Source::Kernel,
        };
        #[cfg(not(feature = "dpdk"))]
        let source = Source::Kernel;
        let options = Options {
            config,
            cores: self.cores,
            idle: match self.idle {
                Idle::Adaptive => IdlePolicy::default(),
                Idle::Busy => IdlePolicy::Busy,
            },
            rpc: self.rpc_socket,
            memory: self.memory,
            source,
            iova_mode: match self.iova_mode {
                Iova::Va => IovaMode::Va,
                Iova::Pa => IovaMode::Pa,
            },
            wait_for_rpc: self.wait_for_rpc,
            ignore_config_errors: self.json_ignore_init_errors,
            log,
        };
        let rpc = options.rpc.clone();
        let program = std::env::args()
            .next()
            .unwrap_or_else(|| "stripewise".into());
        serve::run(options, |system| {
            // Whoever closed our output does not want to know.
            let _ = write!(io::stdout(), "{}", banner::text(system, &rpc, &program));
            // Where no service manager waits for it, nothing happens.
            if let Err(error) = sd_notify::notify(&[sd_notify::NotifyState::Ready]) {
                tracing::warn!("the service manager cannot be told that it is up: {error}");
            }
        })
    }
}
