//! Every fault of a header, and the termination request that answers it.

use super::*;

/// A common header by hand.
fn common(kind: u8, flags: u8, hlen: u8, pdo: u8, plen: u32) -> [u8; 8] {
    let [a, b, c, d] = plen.to_le_bytes();
    [kind, flags, hlen, pdo, a, b, c, d]
}

/// The status and information of the termination request that answers a common header; `None` where it is
/// right so far, and `Some(None)` where the connection is closed without an answer.
fn answer<D: Direction>(decoder: &Decoder<D>, header: [u8; 8]) -> Option<Option<(u16, u32)>> {
    let mut decoder = Decoder::<D> {
        rules: decoder.rules,
        ..Decoder::new()
    };
    let error = decoder.feed(&header).err()?;
    assert_eq!(decoder.feed(&[0; 64]), Err(error), "an error lasts");
    assert_eq!(decoder.wanted(), Wanted::Framing(0));
    Some(error.fatal().map(|fatal| (fatal.fes(), fatal.fei())))
}

#[test]
fn each_fault_of_a_hosts_header_has_its_answer() {
    let alignment = DataAlignment::from_code(7).expect("32 bytes");
    let both = PduFormat {
        header_digest: true,
        data_digest: true,
        alignment,
    };
    let plain = established::<FromHost>(PduFormat::default());
    let strict = established::<FromHost>(both);
    let invalid = |offset| Some(Some((0x01, offset)));
    let right = None;
    let table = [
        (
            "a capsule without data",
            &plain,
            common(4, 0, 72, 0, 72),
            right,
        ),
        (
            "whatever PDO says there",
            &plain,
            common(4, 0, 72, 200, 72),
            right,
        ),
        (
            "a capsule with data",
            &plain,
            common(4, 0, 72, 72, 72 + 512),
            right,
        ),
        (
            "with padding",
            &plain,
            common(4, 0, 72, 80, 80 + 512),
            right,
        ),
        (
            "as much data as allowed",
            &plain,
            common(4, 0, 72, 72, 72 + 8192),
            right,
        ),
        (
            "more data than allowed",
            &plain,
            common(4, 0, 72, 72, 72 + 8193),
            Some(Some((0x05, 0))),
        ),
        ("H2CData", &plain, common(6, 4, 24, 24, 24 + 65_536), right),
        (
            "more than MAXH2CDATA",
            &plain,
            common(6, 4, 24, 24, 24 + 65_537),
            Some(Some((0x05, 0))),
        ),
        (
            "as long as can be",
            &plain,
            common(6, 4, 24, 24, u32::MAX),
            Some(Some((0x05, 0))),
        ),
        (
            "a reserved type",
            &plain,
            common(8, 0, 24, 0, 24),
            invalid(0),
        ),
        (
            "a type of the future",
            &plain,
            common(0xff, 0xff, 0, 0, 0),
            invalid(0),
        ),
        (
            "a controller's PDU",
            &plain,
            common(9, 0, 24, 0, 24),
            invalid(0),
        ),
        (
            "a flag of another type",
            &plain,
            common(4, 4, 72, 0, 72),
            invalid(1),
        ),
        (
            "a reserved flag",
            &plain,
            common(6, 0x10, 24, 24, 28),
            invalid(1),
        ),
        (
            "a header digest not agreed on",
            &plain,
            common(4, 1, 72, 0, 76),
            invalid(1),
        ),
        (
            "a data digest not agreed on",
            &plain,
            common(4, 2, 72, 72, 72 + 516),
            invalid(1),
        ),
        (
            "a header digest left out",
            &strict,
            common(4, 0, 72, 0, 72),
            invalid(1),
        ),
        (
            "a data digest left out",
            &strict,
            common(4, 1, 72, 96, 96 + 512),
            invalid(1),
        ),
        (
            "both digests",
            &strict,
            common(4, 3, 72, 96, 96 + 512 + 4),
            right,
        ),
        (
            "no data, so no data digest",
            &strict,
            common(4, 1, 72, 0, 76),
            right,
        ),
        (
            "no data, whatever its flag",
            &strict,
            common(4, 3, 72, 0, 76),
            right,
        ),
        (
            "HLEN of another type",
            &plain,
            common(4, 0, 24, 0, 72),
            invalid(2),
        ),
        (
            "HLEN beyond the PDU",
            &plain,
            common(6, 0, 255, 24, 28),
            invalid(2),
        ),
        (
            "PDO inside the header",
            &plain,
            common(4, 0, 72, 68, 72 + 512),
            invalid(3),
        ),
        (
            "PDO inside the digest",
            &strict,
            common(6, 3, 24, 24, 24 + 512),
            invalid(3),
        ),
        (
            "PDO not aligned to 4",
            &plain,
            common(4, 0, 72, 74, 72 + 512),
            invalid(3),
        ),
        (
            "PDO not aligned to 32",
            &strict,
            common(4, 3, 72, 76, 76 + 512),
            invalid(3),
        ),
        (
            "PDO beyond the PDU",
            &plain,
            common(4, 0, 72, 84, 80),
            invalid(3),
        ),
        (
            "PLEN of nothing",
            &plain,
            common(4, 0, 72, 0, 0),
            invalid(4),
        ),
        (
            "PLEN inside the header",
            &plain,
            common(4, 0, 72, 0, 71),
            invalid(4),
        ),
        (
            "PLEN without the header digest",
            &strict,
            common(4, 1, 72, 0, 75),
            invalid(4),
        ),
        ("PLEN at PDO", &plain, common(4, 0, 72, 80, 80), invalid(4)),
        (
            "room for the data digest only",
            &strict,
            common(6, 3, 24, 32, 36),
            invalid(4),
        ),
        (
            "room for less than that",
            &strict,
            common(6, 3, 24, 32, 35),
            invalid(4),
        ),
        (
            "H2CData without data",
            &plain,
            common(6, 4, 24, 24, 24),
            invalid(4),
        ),
        (
            "a second ICReq",
            &plain,
            common(0, 0, 128, 0, 128),
            Some(Some((0x02, 0))),
        ),
        (
            "a termination request",
            &plain,
            common(2, 0, 24, 0, 24),
            right,
        ),
        ("the longest one", &strict, common(2, 0, 24, 0, 152), right),
        (
            "one that is too long",
            &plain,
            common(2, 0, 24, 0, 153),
            Some(None),
        ),
        (
            "one that is too short",
            &plain,
            common(2, 0, 24, 0, 23),
            Some(None),
        ),
        (
            "one of another form",
            &plain,
            common(2, 0, 72, 0, 72),
            Some(None),
        ),
    ];
    for (name, decoder, header, expected) in table {
        assert_eq!(answer(decoder, header), expected, "{name}");
    }
}

#[test]
fn each_fault_of_a_controllers_header_has_its_answer() {
    let plain = established::<FromController>(PduFormat::default());
    let invalid = |offset| Some(Some((0x01, offset)));
    let right = None;
    let table = [
        ("a response", common(5, 0, 24, 0, 24), right),
        ("data", common(7, 4, 24, 24, 28), right),
        (
            "data that completes its command",
            common(7, 12, 24, 24, 28),
            right,
        ),
        (
            "more data than any command wants",
            common(7, 4, 24, 24, 24 + 65_537),
            Some(Some((0x04, 0))),
        ),
        ("a request for data", common(9, 0, 24, 0, 24), right),
        ("a response with data", common(5, 0, 24, 24, 28), invalid(4)),
        ("a request with data", common(9, 0, 24, 24, 28), invalid(4)),
        (
            "a response with the flag of data",
            common(5, 4, 24, 0, 24),
            invalid(1),
        ),
        ("a host's PDU", common(4, 0, 72, 0, 72), invalid(0)),
        (
            "a second ICResp",
            common(1, 0, 128, 0, 128),
            Some(Some((0x02, 0))),
        ),
        ("a termination request", common(3, 0, 24, 0, 40), right),
    ];
    for (name, header, expected) in table {
        assert_eq!(answer(&plain, header), expected, "{name}");
    }
}

#[test]
fn a_connection_starts_with_its_init_pdu() {
    let new = Decoder::<FromHost>::new();
    assert_eq!(answer(&new, common(0, 0, 128, 0, 128)), None);
    assert_eq!(
        answer(&new, common(0, 1, 128, 0, 132)),
        Some(Some((0x01, 1)))
    );
    assert_eq!(
        answer(&new, common(0, 0, 127, 0, 128)),
        Some(Some((0x01, 2)))
    );
    assert_eq!(
        answer(&new, common(0, 0, 128, 0, 129)),
        Some(Some((0x01, 4)))
    );
    assert_eq!(answer(&new, common(4, 0, 72, 0, 72)), Some(Some((0x02, 0))));
    assert_eq!(answer(&new, common(2, 0, 24, 0, 24)), None);
    assert_eq!(
        answer(&Decoder::<FromController>::new(), common(5, 0, 24, 0, 24)),
        Some(Some((0x02, 0)))
    );

    let alignment = DataAlignment::default();
    let request = IcReq {
        alignment,
        header_digest: true,
        data_digest: true,
        max_r2t: 1,
    };
    let (seen, _) = decode(Decoder::<FromHost>::new(), &[&request.encode()]);
    assert_eq!(seen, [Seen::Pdu(HostPdu::IcReq(request), 0)]);
    let response = IcResp {
        alignment,
        header_digest: true,
        data_digest: false,
        max_h2c_data: 131_072,
    };
    let (seen, _) = decode(Decoder::<FromController>::new(), &[&response.encode()]);
    assert_eq!(seen, [Seen::Pdu(ControllerPdu::IcResp(response), 0)]);
    assert_eq!(
        response.host_format(),
        PduFormat {
            header_digest: true,
            data_digest: false,
            alignment
        }
    );
}

#[test]
fn a_wrong_header_digest_is_answered_with_the_digest_received() {
    let format = PduFormat {
        header_digest: true,
        ..PduFormat::default()
    };
    let mut stream = R2t {
        cccid: 1,
        ttag: 2,
        offset: 0,
        len: 512,
    }
    .encode(&format)
    .to_vec();
    let last = stream.len() - 4;
    stream[last..].copy_from_slice(&[1, 2, 3, 4]);
    let (seen, decoder) = decode(established::<FromController>(format), &[&stream]);
    let [Seen::Error(error)] = seen[..] else {
        panic!("one error, not {seen:?}")
    };
    let fatal = error.fatal().expect("an answer");
    assert_eq!((fatal.fes(), fatal.fei()), (0x03, 0x0403_0201));
    let answer = decoder.term_req(fatal);
    assert_eq!(answer[..14], [2, 0, 24, 0, 48, 0, 0, 0, 3, 0, 1, 2, 3, 4]);
    assert_eq!(answer[24..], stream[..24]);
}

#[test]
fn the_answer_copies_what_came_of_the_header() {
    let mut decoder = established::<FromHost>(PduFormat::default());
    let header = common(4, 0, 99, 0, 72);
    let error = decoder.feed(&header).expect_err("HLEN 99");
    assert_eq!(decoder.header(), header);
    let answer = decoder.term_req(error.fatal().expect("an answer"));
    assert_eq!(answer[..14], [3, 0, 24, 0, 32, 0, 0, 0, 1, 0, 2, 0, 0, 0]);
    assert_eq!(answer[24..], header);
}
