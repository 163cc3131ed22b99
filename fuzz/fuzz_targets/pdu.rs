//! Arbitrary bytes as an NVMe/TCP stream in both directions: no panic, the same outcome however the stream is
//! cut, and every PDU that is accepted is accepted again when it is encoded anew.
#![no_main]

use libfuzzer_sys::fuzz_target;
use stripewise::nvme::tcp::{
    ControllerPdu, DataAlignment, Decoder, Direction, Event, FromController, FromHost, HostPdu,
    MAX_FRAMING, PayloadEnd, PduError, PduFormat, Rules, Wanted,
};

#[derive(Debug, PartialEq)]
enum Seen<P> {
    Pdu(P, u32),
    End(PayloadEnd),
    Error(PduError),
}

fn decode<D: Direction>(mut decoder: Decoder<D>, stream: &[u8], piece: usize) -> Vec<Seen<D::Pdu>> {
    let mut seen = Vec::new();
    for mut input in stream.chunks(piece.max(1)) {
        while !input.is_empty() {
            match decoder.wanted() {
                Wanted::Framing(most) => {
                    assert!((1..=MAX_FRAMING).contains(&most));
                    let fed = match decoder.feed(input) {
                        Ok(fed) => fed,
                        Err(error) => {
                            if let Some(fatal) = error.fatal() {
                                assert!((24..=152).contains(&decoder.term_req(fatal).len()));
                            }
                            seen.push(Seen::Error(error));
                            return seen;
                        }
                    };
                    assert!(fed.used > 0);
                    input = &input[fed.used..];
                    match fed.event {
                        Some(Event::Pdu { pdu, payload }) => seen.push(Seen::Pdu(pdu, payload)),
                        Some(Event::PayloadEnd(end)) => seen.push(Seen::End(end)),
                        None => {}
                    }
                }
                Wanted::Payload(left) => {
                    let (payload, rest) = input.split_at(input.len().min(left as usize));
                    seen.extend(decoder.payload(payload).map(Seen::End));
                    input = rest;
                }
            }
        }
    }
    seen
}

fn first_of<D: Direction>(decoder: Decoder<D>, header: &[u8]) -> Option<D::Pdu> {
    match decode(decoder, header, header.len()).into_iter().next() {
        Some(Seen::Pdu(pdu, _)) => Some(pdu),
        _ => None,
    }
}

fuzz_target!(|input: &[u8]| {
    let [choice, piece, stream @ ..] = input else {
        return;
    };
    let format = PduFormat {
        header_digest: choice & 1 != 0,
        data_digest: choice & 2 != 0,
        alignment: DataAlignment::from_code(choice >> 3).expect("5 bits"),
    };
    let rules = Rules {
        format,
        max_capsule_data: 8192,
        max_data: 1 << 20,
    };
    let initialized = choice & 4 != 0;

    fn decoder<D: Direction>(initialized: bool, rules: Rules) -> Decoder<D> {
        let mut decoder = Decoder::new();
        if initialized {
            decoder.establish(rules);
        }
        decoder
    }
    let host = || decoder::<FromHost>(initialized, rules);
    let controller = || decoder::<FromController>(initialized, rules);

    let whole = decode(host(), stream, stream.len());
    assert_eq!(whole, decode(host(), stream, (*piece).into()));
    for seen in &whole {
        let Seen::Pdu(pdu, payload) = seen else {
            continue;
        };
        let header = match pdu {
            HostPdu::IcReq(request) => request.encode(),
            HostPdu::CapsuleCmd(capsule) => capsule.encode(&format, *payload),
            HostPdu::H2cData(data) => data.encode(&format),
            HostPdu::TermReq(_) => continue,
        };
        assert_eq!(first_of(host(), &header).as_ref(), Some(pdu));
    }

    let whole = decode(controller(), stream, stream.len());
    assert_eq!(whole, decode(controller(), stream, (*piece).into()));
    for seen in &whole {
        let Seen::Pdu(pdu, _) = seen else { continue };
        let header = match pdu {
            ControllerPdu::IcResp(response) => response.encode(),
            ControllerPdu::CapsuleResp(capsule) => capsule.encode(&format),
            ControllerPdu::C2hData(data) => data.encode(&format),
            ControllerPdu::R2t(r2t) => r2t.encode(&format),
            ControllerPdu::TermReq(_) => continue,
        };
        assert_eq!(first_of(controller(), &header).as_ref(), Some(pdu));
    }
});
