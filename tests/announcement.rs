//! Hosts find the discovery service by multicast DNS, in a network of the test's own.

mod serving;

use std::process::Command;

use mdns_sd::{ResolvedService, ServiceDaemon, ServiceEvent};
use serde_json::json;
use serving::{BOUND, Place};

/// Set for the process that runs in the network of its own.
const INSIDE: &str = "STRIPEWISE_TEST_INSIDE";

/// Two ends of a cable, and both of them ours.
const NETWORK: &str = "ip link set lo up && \
    ip link add s0 type veth peer name s1 && \
    ip address add 10.77.0.1/24 dev s0 && \
    ip link set s0 up && ip link set s1 up && exec \"$0\" \"$@\"";

#[test]
fn hosts_find_the_discovery_service_by_themselves() {
    if std::env::var_os(INSIDE).is_some() {
        return inside();
    }
    let mut unshare = Command::new("unshare");
    if !rustix::process::geteuid().is_root() {
        unshare.args(["--user", "--map-root-user"]);
    }
    let this = std::env::current_exe().expect("this program");
    let status = unshare
        .args(["--net", "sh", "-c", NETWORK])
        .arg(this)
        .args([
            "--exact",
            "hosts_find_the_discovery_service_by_themselves",
            "--nocapture",
        ])
        .env(INSIDE, "1")
        .status()
        .expect("util-linux has unshare");
    assert!(status.success(), "{status}");
}

fn inside() {
    let place = Place::new();
    let address = |port: &str| json!({"trtype": "TCP", "traddr": "10.77.0.1", "trsvcid": port});
    let nqn = "nqn.2026-11.io.stripewise:a";
    let listen = |port: &str| {
        json!({"method": "nvmf_subsystem_add_listener",
            "params": {"nqn": nqn, "listen_address": address(port)}})
    };
    let content = json!({"subsystems": [{"subsystem": "nvmf", "config": [
        {"method": "nvmf_create_transport", "params": {"trtype": "TCP"}},
        {"method": "nvmf_create_subsystem", "params": {"nqn": nqn, "allow_any_host": true}},
        listen("4420"),
        {"method": "nvmf_publish_mdns_prr", "params": {}},
    ]}]});
    let config = place.config(&content);
    let served = place.serve(&["-c", config.to_str().expect("plain")]);
    let browser = ServiceDaemon::new().expect("sockets");
    let events = browser.browse("_nvme-disc._tcp.local.").expect("a browser");
    let next = |wanted: fn(&ServiceEvent) -> bool| loop {
        let event = events.recv_timeout(BOUND).expect("an event");
        if wanted(&event) {
            return event;
        }
    };
    let resolved = |event| match event {
        ServiceEvent::ServiceResolved(service) => *service,
        other => panic!("{other:?}"),
    };
    let is_resolved = |e: &ServiceEvent| matches!(e, ServiceEvent::ServiceResolved(_));
    let is_removed = |e: &ServiceEvent| matches!(e, ServiceEvent::ServiceRemoved(..));

    let found: ResolvedService = resolved(next(is_resolved));
    assert_eq!(found.get_port(), 4420);
    let addresses: Vec<String> = found
        .get_addresses()
        .iter()
        .map(|a| a.to_ip_addr().to_string())
        .collect();
    assert_eq!(addresses, ["10.77.0.1"]);
    assert_eq!(found.get_property_val_str("p"), Some("tcp"));
    let discovery = "nqn.2014-08.org.nvmexpress.discovery";
    assert_eq!(found.get_property_val_str("nqn"), Some(discovery));

    // It is saved, and there once.
    let saved = served.call("framework_get_config", json!({"name": "nvmf"}));
    let last = saved
        .as_array()
        .and_then(|calls| calls.last())
        .expect("calls");
    assert_eq!(last["method"], "nvmf_publish_mdns_prr");
    let again = served.client().call("nvmf_publish_mdns_prr", json!({}));
    let again = again.expect_err("twice");
    assert!(again.to_string().contains("-17"), "{again}");

    // A listener that comes is told, and the end.
    let params = json!({"nqn": nqn, "listen_address": address("4421")});
    served.call("nvmf_subsystem_add_listener", params);
    loop {
        let one = resolved(next(is_resolved));
        if one.get_port() == 4421 {
            break;
        }
    }
    served.call("nvmf_stop_mdns_prr", json!({}));
    let ServiceEvent::ServiceRemoved(_, name) = next(is_removed) else {
        unreachable!("only these are taken");
    };
    assert!(name.starts_with("stripewise-"), "{name}");
    browser.shutdown().expect("it ends");
    served.end();
}
