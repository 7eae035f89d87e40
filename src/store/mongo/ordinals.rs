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

    /// Tokens with the cluster time that their source gives with them. ADR 25 lists what else was checked.
    #[test]
    fn a_token_contains_its_cluster_time() {
        let token = |data: &str| doc! {"_data": data};
        for (data, seconds, increment) in [
            // Version 0 of the format: a change, printed with its `clusterTime` in a public tutorial.
            (
                "825CF094FB0000000229295A10047BD0B4FEAA254B5E9C3ED88E9A0477E046645F696400645CF094FB9A7A0E082A335F540004",
                1_559_270_651,
                2,
            ),
            // Version 1: no change, from the tests of mongodb-js/mongodb-resumetoken-decoder.
            ("82612F653E000000022B0229296E04", 1_630_496_062, 2),
            // Version 2: a change, from the same tests.
            (
                "826275077A000000012B042C0100296E5A1004BFFDB617400E486099007C0E0048B305463C6F7065726174696F6E54797065003C\
                 696E736572740046646F63756D656E744B65790046645F696400646275077A2F3159F971E405C6000004",
                1_651_836_794,
                1,
            ),
            // Version 2: a change in Atlas in February 2025, printed with its `clusterTime` in josephxsxn/atlas_stream_processors.
            (
                "8267AB8567000000012B042C0100296E5A100465965B35042C4647BAB8119C46E5BA48463C6F7065726174696F6E54797065003C\
                 696E736572740046646F63756D656E744B65790046645F6964006467AB8567A1DFB1AB7E2DBAA7000004",
                1_739_294_055,
                1,
            ),
        ] {
            assert_eq!(cluster_time(&token(data)), Some(seconds << 32 | increment), "{data}");
        }
        for odd in ["", "82", "8265A1", "7065A1B2C300000002", "82zzzzzzzzzzzzzzzz", "82é5A1B2C300000002"] {
            assert_eq!(cluster_time(&token(odd)), None, "{odd}");
        }
    }
}
