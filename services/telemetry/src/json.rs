//! JSON log lines that say which service wrote them.

use std::fmt;

use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::{Format, Json, JsonFields, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent};
use tracing_subscriber::registry::LookupSpan;

/// Puts fixed members in front of those of each line.
pub(crate) struct ServiceJson {
    inner: Format<Json>,
    /// `"service":"..","instance":"..",`
    members: String,
}

impl ServiceJson {
    pub(crate) fn new(service: &str, instance: &str) -> Self {
        let text = |value: &str| serde_json::Value::from(value).to_string();
        let inner = Format::default().json().flatten_event(true).with_span_list(false);
        let members = format!("\"service\":{},\"instance\":{},", text(service), text(instance));
        Self { inner, members }
    }
}

impl<S> FormatEvent<S, JsonFields> for ServiceJson
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, JsonFields>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut line = String::with_capacity(256);
        self.inner.format_event(context, Writer::new(&mut line), event)?;
        match line.strip_prefix('{') {
            Some(rest) => write!(writer, "{{{}{rest}", self.members),
            None => writer.write_str(&line),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;
    use std::sync::{Arc, Mutex};
    use tracing_subscriber::fmt::MakeWriter;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("no panic holds it").extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl MakeWriter<'_> for Sink {
        type Writer = Self;

        fn make_writer(&self) -> Self {
            self.clone()
        }
    }

    #[test]
    fn each_line_is_json_with_the_service_and_the_span() {
        let sink = Sink::default();
        let subscriber = tracing_subscriber::fmt()
            .json()
            .event_format(ServiceJson::new("holdfast-api", "a\"b"))
            .with_writer(sink.clone())
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            let _span = tracing::info_span!("request", request_id = "r1").entered();
            tracing::info!(bytes = 7, "stored");
        });
        let text = sink.0.lock().expect("no panic holds it").clone();
        let line: serde_json::Value = serde_json::from_slice(&text).expect("one JSON line");
        assert_eq!(line["service"], "holdfast-api");
        assert_eq!(line["instance"], "a\"b");
        assert_eq!(line["message"], "stored");
        assert_eq!(line["bytes"], 7);
        assert_eq!(line["span"]["request_id"], "r1");
    }
}
