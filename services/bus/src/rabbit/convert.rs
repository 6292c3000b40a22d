//! Between a [`Message`] and what AMQP carries.

use bytes::Bytes;
use holdfast_core::wire::{HeaderValue, Headers};
use lapin::BasicProperties;
use lapin::message::Delivery;
use lapin::types::{AMQPValue, FieldTable, LongString, ShortString};

use crate::Message;

/// Headers of one message that are looked at; Holdfast sends fewer than ten.
const HEADERS_READ: usize = 64;

/// Not stored by the broker: a heartbeat is stale before a broker has
/// restarted.
const NOT_PERSISTENT: u8 = 1;

/// The properties of an outgoing message that passed `Message::check`.
pub(super) fn properties(message: &Message, reply_queue: &ShortString) -> BasicProperties {
    let mut properties = BasicProperties::default()
        .with_content_type("application/json".into())
        .with_delivery_mode(NOT_PERSISTENT)
        .with_app_id("holdfast".into());
    if message.wants_reply {
        properties = properties.with_reply_to(reply_queue.clone());
    }
    if let Some(id) = message.correlation_id.as_ref().and_then(|id| ShortString::try_new(id).ok()) {
        properties = properties.with_correlation_id(id);
    }
    if !message.headers.is_empty() {
        properties = properties.with_headers(table(&message.headers));
    }
    properties
}

fn table(headers: &Headers) -> FieldTable {
    let mut table = FieldTable::default();
    for (name, value) in headers {
        let Ok(name) = ShortString::try_new(name) else { continue };
        let value = match value {
            HeaderValue::Int(value) => AMQPValue::LongLongInt(*value),
            HeaderValue::Text(text) => AMQPValue::LongString(LongString::from(text.as_bytes())),
        };
        table.insert(name, value);
    }
    table
}

/// A message that arrived. The body is moved, not copied.
pub(super) fn incoming(delivery: Delivery) -> Message {
    let Delivery { properties, data, .. } = delivery;
    Message {
        headers: properties.headers().as_ref().map(headers).unwrap_or_default(),
        reply_to: text(properties.reply_to().as_ref()),
        correlation_id: text(properties.correlation_id().as_ref()),
        wants_reply: false,
        body: Bytes::from(data),
    }
}

/// An empty property is an absent one.
fn text(text: Option<&ShortString>) -> Option<String> {
    text.map(ShortString::as_str).filter(|text| !text.is_empty()).map(str::to_owned)
}

fn headers(table: &FieldTable) -> Headers {
    let entries = table.inner().iter().take(HEADERS_READ);
    entries
        .filter_map(|(name, value)| Some((name.as_str().to_owned(), header_value(value)?)))
        .collect()
}

/// `None` for a type that Holdfast does not use.
fn header_value(value: &AMQPValue) -> Option<HeaderValue> {
    Some(match value {
        AMQPValue::Boolean(value) => HeaderValue::Int(i64::from(*value)),
        AMQPValue::ShortShortInt(value) => HeaderValue::Int(i64::from(*value)),
        AMQPValue::ShortShortUInt(value) => HeaderValue::Int(i64::from(*value)),
        AMQPValue::ShortInt(value) => HeaderValue::Int(i64::from(*value)),
        AMQPValue::ShortUInt(value) => HeaderValue::Int(i64::from(*value)),
        AMQPValue::LongInt(value) => HeaderValue::Int(i64::from(*value)),
        AMQPValue::LongUInt(value) => HeaderValue::Int(i64::from(*value)),
        AMQPValue::LongLongInt(value) => HeaderValue::Int(*value),
        AMQPValue::ShortString(text) => HeaderValue::Text(text.as_str().to_owned()),
        AMQPValue::LongString(text) => {
            HeaderValue::Text(std::str::from_utf8(text.as_bytes()).ok()?.to_owned())
        }
        AMQPValue::Float(_)
        | AMQPValue::Double(_)
        | AMQPValue::DecimalValue(_)
        | AMQPValue::FieldArray(_)
        | AMQPValue::Timestamp(_)
        | AMQPValue::FieldTable(_)
        | AMQPValue::ByteArray(_)
        | AMQPValue::Void => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delivery(properties: BasicProperties) -> Delivery {
        let mut delivery = Delivery::mock(1, "".into(), "".into(), false, b"\"a\"".to_vec());
        delivery.properties = properties;
        delivery
    }

    #[test]
    fn a_message_survives_the_way_out_and_in() {
        let mut message = Message { body: Bytes::from_static(b"\"a\""), ..Message::default() };
        message.correlation_id = Some("7".to_owned());
        message.wants_reply = true;
        message.headers.insert("int".to_owned(), HeaderValue::Int(i64::MIN));
        message.headers.insert("text".to_owned(), HeaderValue::Text("ä".to_owned()));
        let properties = properties(&message, &"queue".into());
        assert_eq!(*properties.delivery_mode(), Some(1));
        let arrived = incoming(delivery(properties));
        let expected =
            Message { reply_to: Some("queue".to_owned()), wants_reply: false, ..message };
        assert_eq!(arrived, expected);
    }

    #[test]
    fn only_the_types_in_use_are_taken() {
        let mut table = FieldTable::default();
        table.insert("nested".into(), AMQPValue::FieldTable(FieldTable::default()));
        table.insert("float".into(), AMQPValue::Double(1.5));
        table.insert("time".into(), AMQPValue::Timestamp(u64::MAX));
        table.insert("void".into(), AMQPValue::Void);
        table.insert("not utf-8".into(), AMQPValue::LongString(vec![0xff, 0xfe].into()));
        table.insert("yes".into(), AMQPValue::Boolean(true));
        table.insert("wide".into(), AMQPValue::LongUInt(u32::MAX));
        let message = incoming(delivery(BasicProperties::default().with_headers(table)));
        let expected: Headers = [("yes", 1), ("wide", i64::from(u32::MAX))]
            .map(|(name, value)| (name.to_owned(), HeaderValue::Int(value)))
            .into();
        assert_eq!(message.headers, expected);
        assert_eq!((message.reply_to, message.correlation_id), (None, None));
    }

    #[test]
    fn no_more_than_some_headers_are_read() {
        let mut table = FieldTable::default();
        for number in 0..1_000 {
            table.insert(format!("{number}").into(), AMQPValue::LongInt(number));
        }
        let message = incoming(delivery(BasicProperties::default().with_headers(table)));
        assert_eq!(message.headers.len(), HEADERS_READ);
    }
}
