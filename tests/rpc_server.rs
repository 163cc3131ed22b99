//! The RPC server of a real process: many clients, bad clients, one process a socket, and its end.

mod serving;

use std::os::unix::net::UnixStream;
use std::process::{Command, Output};
use std::thread::sleep;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};
use serving::{Client, PROGRAM, Place, wait_for};

#[test]
fn sixty_four_clients_are_served_and_the_next_when_one_leaves() {
    let place = Place::new();
    let serving = place.serve(&[]);
    let mut clients: Vec<Client> = (0..64).map(|_| serving.client()).collect();
    for client in &mut clients {
        let version = client.call("spdk_get_version", Value::Null).unwrap();
        assert_eq!(version["fields"]["major"], 0);
    }
    let mut late = serving.client();
    late.send(br#"{"id":1,"method":"spdk_get_version"}"#);
    late.stream
        .set_read_timeout(Some(Duration::from_millis(200)))
        .unwrap();
    let mut byte = [0];
    let early = std::io::Read::read(&mut late.stream, &mut byte);
    assert!(early.is_err(), "there is no room for it yet: {early:?}");
    late.stream.set_read_timeout(Some(serving::BOUND)).unwrap();
    drop(clients.pop());
    assert!(late.receive().unwrap()["result"]["version"].is_string());
    // The others were not disturbed.
    for client in &mut clients {
        client.call("spdk_get_version", Value::Null).unwrap();
    }
    serving.end();
}

#[test]
fn bad_clients_harm_nobody() {
    let place = Place::new();
    let serving = place.serve(&[]);
    // Some send half a request, some the beginning of a very long one, some ask and never read.
    let mut bad = Vec::new();
    for n in 0..30 {
        let mut client = serving.client();
        match n % 3 {
            0 => client.send(br#"{"id":1,"method":"spdk_get"#),
            1 => client.send(&[&b"{\"id\":\""[..], &vec![b'x'; 200_000]].concat()),
            _ => {
                client.stream.set_nonblocking(true).unwrap();
                let request = br#"{"id":1,"method":"rpc_get_methods"}"#.repeat(100);
                // Until the server takes no more because we do not read.
                while std::io::Write::write_all(&mut client.stream, &request).is_ok() {
                    sleep(Duration::from_millis(1));
                }
            }
        }
        bad.push(client);
    }
    let mut good = serving.client();
    for _ in 0..100 {
        good.call("rpc_get_methods", Value::Null).unwrap();
    }
    drop(bad);
    good.call("rpc_get_methods", Value::Null).unwrap();
    serving.end();
}

#[test]
fn what_is_not_json_is_answered_and_cut_off() {
    let place = Place::new();
    let serving = place.serve(&[]);
    let endless = vec![b'['; 300];
    let long = [&b"\""[..], &vec![b'x'; 300_000]].concat();
    for garbage in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        b"{\"id\":1,}",
        &endless,
        &long,
    ] {
        let mut client = serving.client();
        // The server may close before it has read everything.
        let _ = std::io::Write::write_all(&mut client.stream, garbage);
        let answer = client.receive().expect("an answer before the end");
        assert_eq!(answer["error"]["code"], -32700, "{answer}");
        assert_eq!(answer["id"], Value::Null);
        let _ = client.is_closed();
    }
    let mut good = serving.client();
    good.call("spdk_get_version", Value::Null).unwrap();
    serving.end();
}

#[test]
fn requests_need_no_delimiter_and_come_in_pieces_and_batches() {
    let place = Place::new();
    let serving = place.serve(&[]);
    let mut client = serving.client();
    let text = r#"{"id":1,"method":"spdk_get_version"}{"method":"no_such"}[{"id":2,"method":"spdk_get_version"},{"id":"x","method":"no_such"},{"method":"spdk_get_version"}][]"#;
    for piece in text.as_bytes().chunks(7) {
        client.send(piece);
        sleep(Duration::from_millis(1));
    }
    assert_eq!(client.receive().unwrap()["id"], 1);
    let unknown = client.receive().unwrap();
    assert_eq!(
        (&unknown["id"], &unknown["error"]["code"]),
        (&Value::Null, &json!(-32601))
    );
    let batch = client.receive().unwrap();
    assert_eq!(batch.as_array().unwrap().len(), 2);
    assert_eq!((&batch[0]["id"], &batch[1]["id"]), (&json!(2), &json!("x")));
    assert_eq!(client.receive().unwrap()["error"]["code"], -32600);
    // What was asked before the client ended its half is still answered.
    client.send(br#"{"id":9,"method":"spdk_get_version"}"#);
    client.stream.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(client.receive().unwrap()["id"], 9);
    assert_eq!(client.receive(), None);
    serving.end();
}

#[test]
fn one_process_has_a_socket_and_a_killed_one_leaves_it_to_the_next() {
    let place = Place::new();
    let mut first = place.serve(&[]);
    let second = Command::new(PROGRAM)
        .args(["serve", "-s", "64", "-m", &serving::mask(1), "-r"])
        .arg(&first.socket)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert_eq!(second.status.code(), Some(1), "{said}");
    assert!(
        said.contains("in use by another process") && said.contains("-r"),
        "{said}"
    );
    first.call("spdk_get_version", Value::Null);
    first.signal(Signal::KILL);
    first.wait();
    assert!(first.socket.exists(), "nobody was left to remove it");
    assert!(UnixStream::connect(&first.socket).is_err());
    let next = place.serve(&[]);
    next.call("spdk_get_version", Value::Null);
    next.end();
}

#[test]
fn it_ends_well_when_it_is_asked_to() {
    let place = Place::new();
    for signal in [Signal::INT, Signal::TERM] {
        let mut serving = place.serve(&[]);
        let _idle = serving.client();
        serving.signal(signal);
        assert_eq!(serving.wait().code(), Some(0), "{}", serving.stderr());
        assert!(!serving.socket.exists());
        assert!(!place.path("rpc.sock.lock").exists());
    }
    let mut serving = place.serve(&[]);
    let answer = serving.call("spdk_kill_instance", json!({"sig_name": "SIGTERM"}));
    assert_eq!(answer, true);
    assert_eq!(serving.wait().code(), Some(0));
}

#[test]
fn the_start_may_be_completed_over_rpc() {
    let place = Place::new();
    let serving = place.serve(&["--wait-for-rpc"]);
    let mut waiting = serving.client();
    waiting.send(br#"{"id":1,"method":"framework_wait_init"}"#);
    let mut client = serving.client();
    let early = client.call("bdev_get_bdevs", Value::Null).unwrap_err();
    assert_eq!(early["code"], -1);
    client.call("framework_start_init", Value::Null).unwrap();
    assert_eq!(waiting.receive().unwrap()["result"], true);
    assert_eq!(client.call("bdev_get_bdevs", Value::Null), Ok(json!([])));
    serving.end();
}

#[test]
fn a_device_is_waited_for_while_others_are_served() {
    let place = Place::new();
    let serving = place.serve(&[]);
    let mut waiting = serving.client();
    waiting.send(br#"{"id":1,"method":"bdev_get_bdevs","params":{"name":"n0","timeout":100000}}"#);
    let null = json!({"name": "n0", "num_blocks": 8, "block_size": 512});
    serving.call("bdev_null_create", null);
    assert_eq!(waiting.receive().unwrap()["result"][0]["name"], "n0");
    // A client that leaves while it waits is no trouble.
    let mut leaving = serving.client();
    leaving.send(br#"{"id":1,"method":"bdev_get_bdevs","params":{"name":"n1","timeout":200}}"#);
    drop(leaving);
    let mut slow = serving.client();
    let late = slow.call("bdev_get_bdevs", json!({"name": "n1", "timeout": 300}));
    assert_eq!(late.unwrap_err()["code"], -19);
    serving.end();
}

fn rpc(place: &Place, args: &[&str]) -> Output {
    let command = Command::new(PROGRAM)
        .arg("rpc")
        .arg("-s")
        .arg(place.socket())
        .args(args)
        .output();
    command.unwrap()
}

#[test]
fn the_command_line_calls_methods() {
    let place = Place::new();
    let unreachable = rpc(&place, &["spdk_get_version"]);
    assert_eq!(unreachable.status.code(), Some(1));
    let said = String::from_utf8_lossy(&unreachable.stderr).into_owned();
    assert!(said.contains("is `stripewise serve` running"), "{said}");

    let serving = place.serve(&[]);
    let made = rpc(
        &place,
        &[
            "bdev_null_create",
            "name=n0",
            "num_blocks=8",
            "block_size=512",
        ],
    );
    assert_eq!(made.status.code(), Some(0));
    assert_eq!(String::from_utf8_lossy(&made.stdout), "\"n0\"\n");
    let shown = rpc(&place, &["bdev_get_bdevs", "{\"name\": \"n0\"}"]);
    let text = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(
        text.contains("\n    \"name\": \"n0\",\n"),
        "indented: {text}"
    );
    let nqn = "nqn.2026-11.io.stripewise:a";
    for args in [
        &["nvmf_create_transport", "trtype=TCP"][..],
        &["nvmf_create_subsystem", &format!("nqn={nqn}")],
        &[
            "nvmf_subsystem_add_ns",
            &format!("nqn={nqn}"),
            "namespace.bdev_name=n0",
        ],
        &[
            "nvmf_subsystem_add_listener",
            &format!("nqn={nqn}"),
            "listen_address.trtype=TCP",
            "listen_address.traddr=127.0.0.1",
            "listen_address.trsvcid=0",
        ],
    ] {
        let done = rpc(&place, args);
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        assert_eq!(done.status.code(), Some(0), "{args:?}: {said}");
    }
    for (args, names) in [
        (&["no_such_method"][..], "Method not found (code -32601)"),
        (&["bdev_get_bdevs", "name=x"], "code -19"),
        (&["bdev_null_delete", "name=n0"], nqn),
        (&["bdev_get_bdevs", "name"], "KEY=VALUE"),
    ] {
        let failed = rpc(&place, args);
        assert_eq!(failed.status.code(), Some(1), "{args:?}");
        assert!(failed.stdout.is_empty());
        let said = String::from_utf8_lossy(&failed.stderr).into_owned();
        assert!(said.contains(names), "{args:?}: {said}");
    }
    serving.end();
}

#[test]
fn the_log_says_more_when_it_is_told_to() {
    let place = Place::new();
    let serving = place.serve(&[]);
    let mut client = serving.client();
    let fail = |client: &mut Client| client.call("no_such_method", Value::Null).unwrap_err();
    fail(&mut client);
    assert!(!serving.stderr().contains("no_such_method"));
    let level = json!({"level": "INFO"});
    client.call("log_set_print_level", level).unwrap();
    fail(&mut client);
    wait_for("the log", || {
        serving.stderr().contains("no_such_method").then_some(())
    });
    serving.end();
}

/// An exporter that is ended when the test is over.
struct Exporter(std::process::Child);

impl Drop for Exporter {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn prometheus_is_told_what_is_counted_and_when_nobody_is_there() {
    use std::io::{BufRead, BufReader, Read, Write};
    use std::net::TcpStream;

    let place = Place::new();
    let serving = place.serve(&[]);
    let null = json!({"name": "n0", "num_blocks": 8, "block_size": 512});
    serving.call("bdev_null_create", null);
    // One of two devices is exported, and has a histogram.
    let nqn = "nqn.2026-11.io.stripewise:a";
    serving.call("nvmf_create_transport", json!({"trtype": "TCP"}));
    serving.call("nvmf_create_subsystem", json!({"nqn": nqn}));
    let exported = json!({"nqn": nqn, "namespace": {"bdev_name": "n0"}});
    serving.call("nvmf_subsystem_add_ns", exported);
    let other = json!({"name": "n1", "num_blocks": 8, "block_size": 512});
    serving.call("bdev_null_create", other);
    let enable = json!({"name": "n0", "enable": true});
    serving.call("bdev_enable_histogram", enable);
    let mut child = Command::new(PROGRAM)
        .args(["exporter", "--listen", "127.0.0.1:0", "-s"])
        .arg(place.socket())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("the program starts");
    let output = child.stdout.take().expect("a pipe");
    let _exporter = Exporter(child);
    let mut url = String::new();
    BufReader::new(output).read_line(&mut url).expect("a line");
    let address = url.trim().strip_prefix("http://").expect("an address");
    let (address, path) = address.split_once('/').expect("a path");
    let ask = |request: String| {
        let mut stream = TcpStream::connect(address).expect("it listens");
        stream
            .set_read_timeout(Some(serving::BOUND))
            .expect("a timeout");
        stream
            .write_all(request.as_bytes())
            .expect("it takes the request");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        answer
    };
    let get = |path: &str| ask(format!("GET /{path} HTTP/1.0\r\n\r\n"));
    let page = get(path);
    assert!(page.starts_with("HTTP/1.0 200"), "{page}");
    assert!(page.contains("application/openmetrics-text"), "{page}");
    // What a browser says that it takes.
    let accept = "Accept: text/html,application/xhtml+xml,*/*;q=0.8";
    let shown = ask(format!("GET /{path} HTTP/1.0\r\n{accept}\r\n\r\n"));
    assert!(shown.contains("Content-Type: text/plain"), "{shown}");
    assert!(shown.contains("stripewise_up 1.0"), "{shown}");
    assert!(page.contains("stripewise_up 1.0"), "{page}");
    assert!(
        page.contains("stripewise_bdev_ops_total{bdev=\"n0\",kind=\"read\"} 0"),
        "{page}"
    );
    let spread = "stripewise_bdev_command_seconds_count{bdev=";
    assert!(page.contains(&format!("{spread}\"n0\"}} 0")), "{page}");
    assert!(!page.contains(&format!("{spread}\"n1\"")), "{page}");
    assert!(get("other").starts_with("HTTP/1.0 404"));
    assert!(ask("POST /metrics HTTP/1.0\r\n\r\n".into()).starts_with("HTTP/1.0 405"));
    serving.end();
    let page = get(path);
    assert!(page.contains("stripewise_up 0.0"), "{page}");
    assert!(!page.contains("n0"), "{page}");
}

#[test]
fn a_service_manager_is_told_when_it_is_up() {
    let place = Place::new();
    let path = place.path("notify");
    let socket = std::os::unix::net::UnixDatagram::bind(&path).expect("a socket");
    socket
        .set_read_timeout(Some(serving::BOUND))
        .expect("a timeout");
    let mut child = Command::new(PROGRAM)
        .args(["serve", "-s", "64", "-m", &serving::mask(1), "-r"])
        .arg(place.socket())
        .env("NOTIFY_SOCKET", &path)
        .stdout(std::process::Stdio::null())
        .spawn()
        .expect("the program starts");
    let mut message = [0; 256];
    let length = socket.recv(&mut message).expect("a message");
    let text = String::from_utf8_lossy(&message[..length]).into_owned();
    let reached = UnixStream::connect(place.socket());
    child.kill().expect("it is there");
    child.wait().expect("it ends");
    assert!(text.lines().any(|line| line == "READY=1"), "{text:?}");
    assert!(reached.is_ok(), "it takes calls by then");
}
