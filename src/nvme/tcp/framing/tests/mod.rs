//! The decoder driven as a connection drives it.

mod faults;
mod streams;

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
fn data_may_stand_as_far_behind_its_header_as_pdo_reaches() {
    // An H2CData of 4 bytes at byte 252: 228 bytes of padding, in one piece and byte by byte.
    let header = [
        6, 0b100, 24, 252, 0, 1, 0, 0, 2, 1, 4, 3, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0,
    ];
    let mut decoder = established::<FromHost>(PduFormat::default());
    decoder.feed(&header).expect("a header");
    assert_eq!(decoder.wanted(), Wanted::Framing(228));
    assert_eq!(MAX_FRAMING, 228);
    let mut stream = header.to_vec();
    stream.extend([0xee; 228]);
    stream.extend(b"data");
    for piece in [1, stream.len()] {
        let pieces: Vec<&[u8]> = stream.chunks(piece).collect();
        let (seen, decoder) = decode(established::<FromHost>(PduFormat::default()), &pieces);
        assert_eq!(
            seen[1],
            Seen::Payload(b"data".to_vec()),
            "{piece} at a time"
        );
        assert!(decoder.is_idle());
    }
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
