//! Reads lines in a thread of their own. The thread waits while the channel is full.

use std::{
    io::{BufRead, BufReader, Read},
    thread,
};

use tokio::sync::mpsc;

/// The gateway accepts no larger payload, and the rest of an event is small.
const MAX_BYTES: usize = 256 * 1024;
/// How many lines are read ahead.
const QUEUE: usize = 1000;

#[derive(Debug, PartialEq)]
pub(super) struct Line {
    /// From 1.
    pub number: u64,
    pub text: Result<String, String>,
}

/// Empty lines are left out. The thread ends with the input, or when the receiver is dropped.
pub(super) fn read_lines(input: impl Read + Send + 'static) -> mpsc::Receiver<Line> {
    let (sender, receiver) = mpsc::channel(QUEUE);
    thread::spawn(move || {
        let mut input = BufReader::new(input);
        for number in 1.. {
            let text = match read_line(&mut input) {
                Ok(Some(text)) if text.trim().is_empty() => continue,
                Ok(Some(text)) => Ok(text),
                Ok(None) => return,
                Err(reason) => Err(reason),
            };
            let is_broken = text.as_ref().is_err_and(|reason| reason.starts_with(UNREADABLE));
            if sender.blocking_send(Line { number, text }).is_err() || is_broken {
                return;
            }
        }
    });
    receiver
}

const UNREADABLE: &str = "can't be read";

/// `None` means that the input has ended.
fn read_line(input: &mut impl BufRead) -> Result<Option<String>, String> {
    let unreadable = |error| format!("{UNREADABLE}: {error}");
    let mut line = Vec::new();
    let limit = MAX_BYTES as u64 + 1;
    input.by_ref().take(limit).read_until(b'\n', &mut line).map_err(unreadable)?;
    if line.is_empty() {
        return Ok(None);
    }
    if line.len() > MAX_BYTES && line.last() != Some(&b'\n') {
        input.skip_until(b'\n').map_err(unreadable)?;
        return Err(format!("is longer than {MAX_BYTES} bytes"));
    }
    String::from_utf8(line).map(Some).map_err(|_| "is not UTF-8".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn bad_lines_do_not_end_the_input() {
        let long = "x".repeat(3 * MAX_BYTES);
        let input = [b"a\n\n \r\n", long.as_bytes(), b"\n\xff\nb"].concat();
        let mut lines = read_lines(std::io::Cursor::new(input));
        let mut read = Vec::new();
        while let Some(Line { number, text }) = lines.recv().await {
            read.push((number, text.map(|text| text.trim().to_owned())));
        }
        let long = Err(format!("is longer than {MAX_BYTES} bytes"));
        let expected = [
            (1, Ok("a".to_owned())),
            (4, long),
            (5, Err("is not UTF-8".to_owned())),
            (6, Ok("b".to_owned())),
        ];
        assert_eq!(read, expected);
    }
}
