//! Streams of PDUs, whole, cut and damaged.

use proptest::prelude::*;

use super::*;

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
