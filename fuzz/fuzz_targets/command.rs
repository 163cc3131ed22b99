//! Arbitrary queue entries as a target reads them: no panic, and what is understood is built and understood again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use stripewise::nvme::admin::AdminCommand;
use stripewise::nvme::fabrics::FabricsCommand;
use stripewise::nvme::io::IoCommand;
use stripewise::nvme::{Command, Completion};
use zerocopy::FromBytes;

fuzz_target!(|input: &[u8]| {
    let Ok((command, rest)) = Command::read_from_prefix(input) else {
        return;
    };
    let _ = (command.fuse(), command.data_transfer(), command.prps());
    let sgl = command.data.parse();
    assert!(sgl.unsupported().is_none() || sgl.data_len() == 0);

    if let Ok(admin) = AdminCommand::parse(&command) {
        assert_eq!(
            AdminCommand::parse(&admin.to_command(command.nsid.get())),
            Ok(admin)
        );
    }
    if let Ok(io) = IoCommand::parse(&command) {
        assert_eq!(IoCommand::parse(&io.to_command(command.nsid.get())), Ok(io));
        assert!(io.data_len(4096) <= 65_536 * 4096);
        if let Some(range) = io.range() {
            assert_eq!(range.check_within(u64::MAX).is_ok(), range.end().is_some());
        }
    }
    if let Ok(fabrics) = FabricsCommand::parse(&command) {
        assert_eq!(FabricsCommand::parse(&fabrics.to_command()), Ok(fabrics));
    }
    if let Ok((completion, _)) = Completion::read_from_prefix(rest) {
        let status = completion.status();
        assert_eq!(status.field(), completion.status_field.get() & !1);
        let _ = status.to_string();
    }
});
