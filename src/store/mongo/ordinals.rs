//! Numbers the changes that share a cluster time, and reads the cluster time of a resume token.

use mongodb::bson::Document;

use crate::feed::Position;

/// The prefix of a timestamp in the server's key format.
const TIMESTAMP: &str = "82";

/// Counts the changes of one cluster time (a transaction) in the stream's order.
///
/// Every change counts, whether clients see it or not, and a stream begins only before a cluster time. A change therefore gets the same
/// position on every node.
#[derive(Debug, Default)]
pub(super) struct Ordinals {
    time: u64,
    next: u32,
}

impl Ordinals {
    /// The cluster time of the last change.
    pub(super) fn time(&self) -> u64 {
        self.time
    }

    pub(super) fn next(&mut self, time: u64) -> Position {
        if time != self.time {
            *self = Self { time, next: 0 };
        }
        let position = Position::change(time, self.next);
        self.next = self.next.saturating_add(1);
        position
    }
}

/// The cluster time of a token. If the last batch was empty, the stream has returned all changes up to this time.
///
/// The server creates the token from the last oplog entry that it has examined. It returns a batch only when all changes of that entry are
/// in this batch or in an earlier one.
pub(super) fn cluster_time(token: &Document) -> Option<u64> {
    let digits = token.get_str("_data").ok()?.strip_prefix(TIMESTAMP)?.get(..16)?;
    u64::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use mongodb::bson::doc;

    #[test]
    fn changes_of_one_time_are_numbered() {
        let mut ordinals = Ordinals::default();
        let positions = [5, 5, 6, 6, 6, 9].map(|time| ordinals.next(time));
        let expected = [(5, 0), (5, 1), (6, 0), (6, 1), (6, 2), (9, 0)];
        assert_eq!(positions, expected.map(|(time, ordinal)| Position::change(time, ordinal)));
    }

    #[test]
    fn a_token_contains_its_cluster_time() {
        let token = |data: &str| doc! {"_data": data};
        assert_eq!(cluster_time(&token("8265A1B2C3000000022B0229")), Some(0x65A1_B2C3_0000_0002));
        for odd in ["", "82", "8265A1", "7065A1B2C300000002", "82zzzzzzzzzzzzzzzz", "82é5A1B2C300000002"] {
            assert_eq!(cluster_time(&token(odd)), None, "{odd}");
        }
    }
}
