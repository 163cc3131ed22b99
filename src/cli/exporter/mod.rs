//! `stripewise exporter`: what a serving process counts, for Prometheus.
//!
//! A process of its own that asks over RPC, so that neither a scrape nor whoever reaches the port can
//! hold up the target.

mod families;
mod page;

use std::io;
use std::net::SocketAddr;

use serde_json::{Value, json};
use tiny_http::{Header, Method, Request, Response, Server};

use self::families::{Scrape, families};
use super::answers::Answers;
use super::client::{Client, ClientError};

/// Answers each request for /metrics with what the target counts then.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    client: Client,
    /// The address to listen on. Nothing is secret there, and nobody is asked who they are.
    #[arg(
        short,
        long,
        value_name = "ADDRESS:PORT",
        default_value = "127.0.0.1:9879"
    )]
    listen: SocketAddr,
}

/// It cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum ExporterError {
    /// The address cannot be had.
    #[error("cannot listen on {address}: {reason}; choose another address (-l)")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the operating system said.
        reason: String,
    },
    /// Requests come no more.
    #[error("requests cannot be received any more: {0}")]
    Receive(io::Error),
}

impl Args {
    /// Answers until the process is ended.
    ///
    /// # Errors
    /// [`ExporterError`].
    pub fn run(self) -> Result<(), ExporterError> {
        let address = self.listen;
        let server = Server::http(address).map_err(|error| ExporterError::Listen {
            address,
            reason: error.to_string(),
        })?;
        println!("http://{}/metrics", server.server_addr());
        loop {
            let request = server.recv().map_err(ExporterError::Receive)?;
            answer(request, &self.client);
        }
    }
}

fn answer(request: Request, client: &Client) {
    let path = request.url().split('?').next().unwrap_or_default();
    let (code, text) = match (request.method(), path) {
        (Method::Get | Method::Head, "/metrics") => (200, metrics(client)),
        (Method::Get | Method::Head, "/") => (200, "see /metrics\n".to_owned()),
        (Method::Get | Method::Head, _) => (404, "there is /metrics\n".to_owned()),
        _ => (405, "only GET is answered\n".to_owned()),
    };
    // A browser shows plain text; what it does not know it saves to a file.
    let by_browser = request
        .headers()
        .iter()
        .any(|h| h.field.equiv("Accept") && h.value.as_str().contains("text/html"));
    let kind = match path {
        "/metrics" if !by_browser => page::CONTENT_TYPE,
        _ => "text/plain; charset=utf-8",
    };
    let mut response = Response::from_string(text).with_status_code(code);
    if let Ok(header) = Header::from_bytes("Content-Type", kind) {
        response.add_header(header);
    }
    // Whoever has left does not want to know.
    let _ = request.respond(response);
}

/// The page; of a target that does not answer, it says just that.
fn metrics(client: &Client) -> String {
    let scrape = ask(client).map_err(|error| tracing::warn!("{error}"));
    page::text(&families(scrape.ok().as_ref()))
}

/// Asks for everything that is told.
fn ask(client: &Client) -> Result<Scrape, ClientError> {
    let answers = Answers::ask(client)?;
    let devices = answers.iostat["bdevs"].as_array().into_iter().flatten();
    let names = devices.filter_map(|device| device["name"].as_str());
    let params: Vec<Value> = names.clone().map(|name| json!({"name": name})).collect();
    let asked = client.call_each("bdev_get_histogram", &params)?;
    // Most have none: it is asked for.
    let had = names.zip(asked);
    let histograms = had.filter_map(|(name, histogram)| Some((name.to_owned(), histogram?)));
    Ok(Scrape {
        histograms: histograms.collect(),
        answers,
    })
}

#[cfg(test)]
mod tests;
