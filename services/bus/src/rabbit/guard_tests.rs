use super::*;

fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("small").to_be_bytes();
    [&[kind, 0, 1][..], &length, payload, &[0xce]].concat()
}

/// A content header with only the headers set.
fn with_table(table: &[u8]) -> Vec<u8> {
    let length = u32::try_from(table.len()).expect("small").to_be_bytes();
    let content = [0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3];
    [&content[..], &(1_u16 << 13).to_be_bytes(), &length, table].concat()
}

fn nested(depth: usize) -> Vec<u8> {
    (0..depth).fold(Vec::new(), |inner, _| {
        let length = u32::try_from(inner.len()).expect("small").to_be_bytes();
        [&[1, b'k', b'F'][..], &length, &inner].concat()
    })
}

/// What comes out when the bytes go in in pieces of `step`.
fn through(bytes: &[u8], step: usize) -> Vec<u8> {
    let mut guard = Guard::new();
    let mut out = Vec::new();
    let mut buffer = [0; 13];
    for piece in bytes.chunks(step) {
        guard.push(piece).expect("small frames");
        loop {
            match guard.pull(&mut buffer) {
                0 => break,
                count => out.extend_from_slice(&buffer[..count]),
            }
        }
    }
    out
}

#[test]
fn harmless_frames_pass_unchanged_in_any_pieces() {
    let table = [&[1, b'a', b'l'][..], &7_i64.to_be_bytes(), &[1, b'b', b'V']].concat();
    let deliver = [&DELIVER[..], &[1, b't'], &[0; 9], &[1, b'e', 2, b'k', b'k']].concat();
    let stream = [
        frame(FRAME_METHOD, &[0, 10, 0, 10, 0xff, 0xfe]),
        frame(FRAME_METHOD, &deliver),
        frame(FRAME_HEADER, &with_table(&table)),
        frame(3, &[0xff; 300]),
        frame(8, &[]),
    ]
    .concat();
    for step in [1, 2, 7, 64, 10_000] {
        assert_eq!(through(&stream, step), stream, "in pieces of {step}");
    }
}

#[test]
fn nested_tables_become_bytes_of_the_same_length() {
    let sent = frame(FRAME_HEADER, &with_table(&nested(15_000)));
    let arrived = through(&sent, 4_096);
    assert_eq!(arrived.len(), sent.len());
    let outer_kind = HEAD_BYTES + CONTENT_BYTES + 2 + 4 + 2;
    assert_eq!((sent[outer_kind], arrived[outer_kind]), (b'F', b'x'));
    assert_eq!(arrived[outer_kind + 1..], sent[outer_kind + 1..]);
}

#[test]
fn text_that_is_not_utf8_becomes_question_marks() {
    let sent = frame(FRAME_HEADER, &with_table(&[2, 0xff, b'a', b'V']));
    let arrived = through(&sent, 9);
    assert_eq!(arrived, frame(FRAME_HEADER, &with_table(&[2, b'?', b'a', b'V'])));
    let deliver = |key: u8| [&DELIVER[..], &[0], &[0; 9], &[0, 1, key]].concat();
    let arrived = through(&frame(FRAME_METHOD, &deliver(0xc3)), 5);
    assert_eq!(arrived, frame(FRAME_METHOD, &deliver(b'?')));
}

#[test]
fn properties_that_cannot_be_read_are_removed() {
    let content = &with_table(&[])[..CONTENT_BYTES];
    let bare = frame(FRAME_HEADER, &[content, &[0, 0]].concat());
    for table in [&[1, b'k', b'?', 0][..], &[9, b'k'], &[1, b'k', b'S', 0xff, 0, 0, 0]] {
        assert_eq!(through(&frame(FRAME_HEADER, &with_table(table)), 11), bare);
    }
    let more_flags = [content, &[0, 1, 0, 0]].concat();
    assert_eq!(through(&frame(FRAME_HEADER, &more_flags), 11), bare);
    // Too short for a content header: left to the parser.
    assert_eq!(through(&frame(FRAME_HEADER, &[0, 60]), 11), frame(FRAME_HEADER, &[0, 60]));
}

#[test]
fn a_frame_beyond_the_limit_ends_the_connection() {
    let mut guard = Guard::new();
    assert!(guard.push(&[FRAME_HEADER, 0, 1, 0xff, 0xff, 0xff, 0xff]).is_err());
    assert!(Guard::new().push(&[3, 0, 1, 0xff, 0xff, 0xff, 0xff]).is_ok());
}

#[test]
fn the_greeting_of_another_version_passes() {
    assert_eq!(through(b"AMQP\x00\x01\x00\x00", 3), b"AMQP\x00\x01\x00\x00");
}

#[test]
fn no_bytes_make_it_panic() {
    // A simple generator: the point is many shapes, not good randomness.
    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
    for round in 0..2_000_usize {
        let mut payload = with_table(&nested(round % 5));
        for _ in 0..=round % 9 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let index = usize::try_from(seed >> 33).expect("31 bits") % payload.len();
            payload[index] = u8::try_from(seed >> 56).expect("8 bits");
        }
        let kind = if round % 2 == 0 { FRAME_HEADER } else { FRAME_METHOD };
        through(&frame(kind, &payload), 1 + round % 50);
    }
}
