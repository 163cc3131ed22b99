//! Streams of whole and broken PDUs, in pieces of every size, through the decoder.

use proptest::prelude::*;

use super::*;
use crate::nvme::command::Command;
use crate::nvme::completion::Completion;
use crate::nvme::status::Status;
use crate::nvme::tcp::capsule::{CapsuleCmd, CapsuleResp};
use crate::nvme::tcp::data::{C2hData, H2cData, R2t};
use crate::nvme::tcp::direction::{ControllerPdu, FromController, FromHost, HostPdu};
use crate::nvme::tcp::init::{IcReq, IcResp};
use crate::nvme::tcp::pdu::{DataAlignment, PduFormat};
use crate::nvme::tcp::term::TermReq;

/// What a stream came to.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Seen<P> {
    Pdu(P, u32),
    Payload(Vec<u8>),
    End(PayloadEnd),
    Error(PduError),
}

/// Decodes pieces of a stream to the end or the first error, as a connection would.
fn decode<D: Direction>(
    mut decoder: Decoder<D>,
    pieces: &[&[u8]],
) -> (Vec<Seen<D::Pdu>>, Decoder<D>) {
    let mut seen = Vec::new();
    let mut payload = Vec::new();
    for piece in pieces {
        let mut input = *piece;
        while !input.is_empty() {
            let end = match decoder.wanted() {
                Wanted::Framing(most) => {
                    let fed = match decoder.feed(input) {
                        Ok(fed) => fed,
                        Err(error) => {
                            seen.push(Seen::Error(error));
                            return (seen, decoder);
                        }
                    };
                    assert!(
                        fed.used > 0 && most > 0,
                        "framing bytes bring the decoder on"
                    );
                    input = &input[fed.used..];
                    match fed.event {
                        Some(Event::Pdu { pdu, payload }) => {
                            seen.push(Seen::Pdu(pdu, payload));
                            None
                        }
                        Some(Event::PayloadEnd(end)) => Some(end),
                        None => None,
                    }
                }
                Wanted::Payload(left) => {
                    let (taken, rest) = input.split_at(input.len().min(left as usize));
                    payload.extend_from_slice(taken);
                    input = rest;
                    decoder.payload(taken)
                }
            };
            if let Some(end) = end {
                seen.push(Seen::Payload(std::mem::take(&mut payload)));
                seen.push(Seen::End(end));
            }
        }
    }
    (seen, decoder)
}

fn rules(format: PduFormat) -> Rules {
    Rules {
        format,
        max_capsule_data: 8192,
        max_data: 65_536,
    }
}

fn established<D: Direction>(format: PduFormat) -> Decoder<D> {
    let mut decoder = Decoder::new();
    decoder.establish(rules(format));
    decoder
}

/// The bytes of a PDU: encoded header, payload, data digest.
fn whole(header: &EncodedHeader, payload: &[u8], format: &PduFormat) -> Vec<u8> {
    let mut bytes = header.to_vec();
    bytes.extend_from_slice(payload);
    if format.data_digest && !payload.is_empty() {
        bytes.extend_from_slice(&crc32c(payload).to_le_bytes());
    }
    bytes
}

fn end(format: &PduFormat) -> PayloadEnd {
    if format.data_digest {
        PayloadEnd::Intact
    } else {
        PayloadEnd::Unchecked
    }
}

prop_compose! {
    fn any_format()(header_digest: bool, data_digest: bool, code in 0..=31_u8) -> PduFormat {
        let alignment = DataAlignment::from_code(code).expect("0 to 31");
        PduFormat { header_digest, data_digest, alignment }
    }
}

prop_compose! {
    fn any_command()(bytes: [[u8; 32]; 2]) -> Command {
        Command::read_from_bytes(bytes.as_flattened()).expect("64 bytes")
    }
}

/// A host's PDU with its payload.
fn any_host_pdu() -> impl Strategy<Value = (HostPdu, Vec<u8>)> {
    let bytes = |least| prop::collection::vec(any::<u8>(), least..600_usize);
    prop_oneof![
        (any_command(), bytes(0))
            .prop_map(|(command, data)| (HostPdu::CapsuleCmd(CapsuleCmd { command }), data)),
        (any::<(u16, u16, u32, bool)>(), bytes(1)).prop_map(
            |((cccid, ttag, offset, last), data)| {
                let len = data.len() as u32;
                (
                    HostPdu::H2cData(H2cData {
                        cccid,
                        ttag,
                        offset,
                        len,
                        last,
                    }),
                    data,
                )
            }
        ),
        (
            1..=6_u16,
            1..200_u32,
            prop::collection::vec(any::<u8>(), 0..=128_usize)
        )
            .prop_map(|(fes, fei, copy)| {
                let fei = if [2, 4, 5].contains(&fes) { 0 } else { fei };
                (HostPdu::TermReq(TermReq { fes, fei }), copy)
            }),
    ]
}

/// A controller's PDU with its payload.
fn any_controller_pdu() -> impl Strategy<Value = (ControllerPdu, Vec<u8>)> {
    let data = prop::collection::vec(any::<u8>(), 1..600_usize);
    prop_oneof![
        any::<(u16, u64, u16)>().prop_map(|(cid, result, sqhd)| {
            let completion = Completion::new(cid, Status::COMPARE_FAILURE)
                .with_result64(result)
                .with_sqhd(sqhd);
            (
                ControllerPdu::CapsuleResp(CapsuleResp { completion }),
                vec![],
            )
        }),
        (any::<(u16, u32, bool, bool)>(), data).prop_map(
            |((cccid, offset, last, success), data)| {
                let len = data.len() as u32;
                let success = success && last;
                (
                    ControllerPdu::C2hData(C2hData {
                        cccid,
                        offset,
                        len,
                        last,
                        success,
                    }),
                    data,
                )
            }
        ),
        (any::<(u16, u16, u32)>(), 1..=u32::MAX).prop_map(|((cccid, ttag, offset), len)| {
            (
                ControllerPdu::R2t(R2t {
                    cccid,
                    ttag,
                    offset,
                    len,
                }),
                vec![],
            )
        }),
    ]
}

fn host_bytes(pdu: &HostPdu, payload: &[u8], format: &PduFormat) -> Vec<u8> {
    match pdu {
        HostPdu::IcReq(request) => request.encode().to_vec(),
        HostPdu::CapsuleCmd(capsule) => whole(
            &capsule.encode(format, payload.len() as u32),
            payload,
            format,
        ),
        HostPdu::H2cData(data) => whole(&data.encode(format), payload, format),
        HostPdu::TermReq(term) => term
            .reason()
            .expect("a known reason")
            .encode(Sender::Host, payload)
            .to_vec(),
    }
}

fn controller_bytes(pdu: &ControllerPdu, payload: &[u8], format: &PduFormat) -> Vec<u8> {
    match pdu {
        ControllerPdu::IcResp(response) => response.encode().to_vec(),
        ControllerPdu::CapsuleResp(capsule) => capsule.encode(format).to_vec(),
        ControllerPdu::C2hData(data) => whole(&data.encode(format), payload, format),
        ControllerPdu::R2t(r2t) => r2t.encode(format).to_vec(),
        ControllerPdu::TermReq(term) => term
            .reason()
            .expect("a known reason")
            .encode(Sender::Controller, payload)
            .to_vec(),
    }
}

/// Cuts a stream at the given places.
fn cut<'a>(stream: &'a [u8], places: &[prop::sample::Index]) -> Vec<&'a [u8]> {
    let mut at: Vec<usize> = places
        .iter()
        .map(|place| place.index(stream.len() + 1))
        .collect();
    at.sort_unstable();
    let mut pieces = Vec::new();
    let mut start = 0;
    for end in at.into_iter().chain([stream.len()]) {
        pieces.push(&stream[start..end]);
        start = end;
    }
    pieces
}

proptest! {
    #[test]
    fn host_pdus_come_out_as_they_went_in(
        format in any_format(),
        pdus in prop::collection::vec(any_host_pdu(), 1..6),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
    ) {
        let mut stream = Vec::new();
        let mut expected = Vec::new();
        for (pdu, payload) in &pdus {
            stream.extend(host_bytes(pdu, payload, &format));
            expected.push(Seen::Pdu(*pdu, payload.len() as u32));
            if !payload.is_empty() {
                expected.push(Seen::Payload(payload.clone()));
                let term = matches!(pdu, HostPdu::TermReq(_));
                expected.push(Seen::End(if term { PayloadEnd::Unchecked } else { end(&format) }));
            }
        }
        let (seen, decoder) = decode(established::<FromHost>(format), &cut(&stream, &cuts));
        prop_assert_eq!(seen, expected);
        prop_assert!(decoder.is_idle());
    }

    #[test]
    fn controller_pdus_come_out_as_they_went_in(
        format in any_format(),
        pdus in prop::collection::vec(any_controller_pdu(), 1..6),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
    ) {
        let mut stream = Vec::new();
        let mut expected = Vec::new();
        for (pdu, payload) in &pdus {
            stream.extend(controller_bytes(pdu, payload, &format));
            expected.push(Seen::Pdu(*pdu, payload.len() as u32));
            if !payload.is_empty() {
                expected.push(Seen::Payload(payload.clone()));
                expected.push(Seen::End(end(&format)));
            }
        }
        let (seen, decoder) = decode(established::<FromController>(format), &cut(&stream, &cuts));
        prop_assert_eq!(seen, expected);
        prop_assert!(decoder.is_idle());
    }

    /// Arbitrary bytes, some of them made to look like headers, never panic, and pieces see what the whole sees.
    #[test]
    fn any_bytes_in_any_pieces_come_to_the_same(
        format in any_format(),
        kind in 0..12_u8,
        flags in 0..16_u8,
        hlen in prop::sample::select(vec![24_u8, 72, 128, 0, 255]),
        pdo in any::<u8>(),
        plen in 0..400_u32,
        tail in prop::collection::vec(any::<u8>(), 0..500),
        initialized: bool,
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
    ) {
        let mut stream = vec![kind, flags, hlen, pdo];
        stream.extend(plen.to_le_bytes());
        stream.extend(tail);
        fn check<D: Direction>(
            decoder: fn(PduFormat, bool) -> Decoder<D>,
            format: PduFormat,
            initialized: bool,
            stream: &[u8],
            pieces: &[&[u8]],
        ) -> Result<(), TestCaseError> {
            let (whole, _) = decode(decoder(format, initialized), &[stream]);
            let (pieces, _) = decode(decoder(format, initialized), pieces);
            prop_assert_eq!(whole, pieces);
            Ok(())
        }
        fn decoder<D: Direction>(format: PduFormat, initialized: bool) -> Decoder<D> {
            if initialized { established(format) } else { Decoder::new() }
        }
        let pieces = cut(&stream, &cuts);
        check::<FromHost>(decoder, format, initialized, &stream, &pieces)?;
        check::<FromController>(decoder, format, initialized, &stream, &pieces)?;
    }

    /// With a header digest no damaged bit of a header passes; a PDU can at worst turn into a termination
    /// request, which has no digest and ends the connection too.
    #[test]
    fn no_damaged_header_passes_its_digest(
        (pdu, payload) in any_host_pdu(),
        data_digest: bool,
        bit in any::<prop::sample::Index>(),
    ) {
        prop_assume!(!matches!(pdu, HostPdu::TermReq(_)));
        let format = PduFormat { header_digest: true, data_digest, ..PduFormat::default() };
        let mut stream = host_bytes(&pdu, &payload, &format);
        let header = stream.len() - payload.len() - if data_digest && !payload.is_empty() { 4 } else { 0 };
        let bit = bit.index(header * 8);
        stream[bit / 8] ^= 1 << (bit % 8);
        let (seen, _) = decode(established::<FromHost>(format), &[&stream]);
        prop_assert!(matches!(seen[0], Seen::Error(_) | Seen::Pdu(HostPdu::TermReq(_), _)), "{:?}", seen[0]);
    }

    #[test]
    fn no_damaged_payload_passes_its_digest(
        data in prop::collection::vec(any::<u8>(), 1..600_usize),
        bit in any::<prop::sample::Index>(),
    ) {
        let format = PduFormat { data_digest: true, ..PduFormat::default() };
        let pdu = C2hData { cccid: 1, offset: 0, len: data.len() as u32, last: true, success: false };
        let header = pdu.encode(&format);
        let mut stream = whole(&header, &data, &format);
        let bit = bit.index((stream.len() - header.len()) * 8);
        stream[header.len() + bit / 8] ^= 1 << (bit % 8);
        let (seen, decoder) = decode(established::<FromController>(format), &[&stream]);
        prop_assert!(matches!(seen[..], [_, _, Seen::End(PayloadEnd::Corrupt { .. })]), "{seen:?}");
        prop_assert!(decoder.is_idle(), "the connection goes on");
    }
}

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
fn a_stream_made_by_hand_is_read() {
    // An H2CData with both digests and its data at byte 32: 28 bytes of header and digest, 4 of padding,
    // "123456789", and the check value of CRC-32C.
    let mut stream = vec![
        6, 0b111, 24, 32, 45, 0, 0, 0, 2, 1, 4, 3, 0, 0, 1, 0, 9, 0, 0, 0, 0, 0, 0, 0,
    ];
    stream.extend(crc32c(&stream).to_le_bytes());
    stream.extend([0xee; 4]);
    stream.extend(b"123456789");
    stream.extend([0x83, 0x92, 0x06, 0xe3]);
    let alignment = DataAlignment::from_code(1).expect("8 bytes");
    let format = PduFormat {
        header_digest: true,
        data_digest: true,
        alignment,
    };
    let (seen, decoder) = decode(established::<FromHost>(format), &[&stream]);
    assert_eq!(
        seen,
        [
            Seen::Pdu(
                HostPdu::H2cData(H2cData {
                    cccid: 0x0102,
                    ttag: 0x0304,
                    offset: 0x1_0000,
                    len: 9,
                    last: true
                }),
                9
            ),
            Seen::Payload(b"123456789".to_vec()),
            Seen::End(PayloadEnd::Intact),
        ]
    );
    assert_eq!(decoder.header(), &stream[..24]);
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

#[test]
fn wanted_says_exactly_how_far_to_read() {
    let format = PduFormat {
        header_digest: true,
        data_digest: true,
        ..PduFormat::default()
    };
    let mut decoder = established::<FromHost>(format);
    let pdu = H2cData {
        cccid: 1,
        ttag: 1,
        offset: 0,
        len: 512,
        last: true,
    };
    let header = pdu.encode(&format);
    assert_eq!(decoder.wanted(), Wanted::Framing(8));
    assert!(decoder.is_idle());
    assert_eq!(
        decoder.feed(&header[..8]),
        Ok(Fed {
            used: 8,
            event: None
        })
    );
    assert_eq!(decoder.wanted(), Wanted::Framing(20));
    assert!(!decoder.is_idle());
    let event = Some(Event::Pdu {
        pdu: HostPdu::H2cData(pdu),
        payload: 512,
    });
    assert_eq!(decoder.feed(&header[8..]), Ok(Fed { used: 20, event }));
    assert_eq!(decoder.wanted(), Wanted::Payload(512));
    assert_eq!(
        decoder.feed(&[1; 100]),
        Ok(Fed {
            used: 0,
            event: None
        }),
        "payload goes past the decoder"
    );
    assert_eq!(decoder.payload(&[0; 500]), None);
    assert_eq!(decoder.wanted(), Wanted::Payload(12));
    assert_eq!(decoder.payload(&[0; 12]), None);
    assert_eq!(decoder.wanted(), Wanted::Framing(4));
    let digest = crc32c(&[0; 512]).to_le_bytes();
    let event = Some(Event::PayloadEnd(PayloadEnd::Intact));
    assert_eq!(decoder.feed(&digest), Ok(Fed { used: 4, event }));
    assert!(decoder.is_idle());
}

#[test]
#[should_panic(expected = "left of the payload")]
fn more_payload_than_there_is_is_a_fault_of_the_caller() {
    let mut decoder = established::<FromHost>(PduFormat::default());
    let header = H2cData {
        cccid: 1,
        ttag: 1,
        offset: 0,
        len: 4,
        last: true,
    }
    .encode(&PduFormat::default());
    decoder.feed(&header).expect("a header");
    decoder.payload(&[0; 5]);
}
