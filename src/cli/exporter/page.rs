//! The page that Prometheus reads, in OpenMetrics' text format.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::NoLabelSet;
use prometheus_client::encoding::{DescriptorEncoder, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use super::families::{Family, Kind, Sample, Value};

/// What it is.
pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Everything as it is at one moment.
#[derive(Debug)]
struct Moment(Vec<Family>);

impl Collector for Moment {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for family in &self.0 {
            let kind = match family.kind {
                Kind::Counter => MetricType::Counter,
                Kind::Gauge => MetricType::Gauge,
                Kind::Histogram => MetricType::Histogram,
            };
            let mut metric = encoder.encode_descriptor(family.name, family.help, None, kind)?;
            for Sample { labels, value } in &family.samples {
                let mut one = metric.encode_family(labels)?;
                match value {
                    Value::Number(n) if family.kind == Kind::Counter => {
                        one.encode_counter::<NoLabelSet, f64, f64>(n, None)?;
                    }
                    Value::Number(n) => one.encode_gauge(n)?,
                    Value::Spread {
                        sum,
                        count,
                        buckets,
                    } => one.encode_histogram::<NoLabelSet>(*sum, *count, buckets, None)?,
                }
            }
        }
        Ok(())
    }
}

/// The page.
pub(super) fn text(families: &[Family]) -> String {
    let mut registry = Registry::default();
    let some = families.iter().filter(|f| !f.samples.is_empty());
    registry.register_collector(Box::new(Moment(some.cloned().collect())));
    let mut page = String::new();
    text::encode(&mut page, &registry).expect("writing to a string does not fail");
    page
}
