//! Reads the query string of an Engine.IO request.

use http::Uri;

use super::{polling::EngineError, sid::Sid, socket::TransportType};

/// The parameters of a request. If a name is repeated, its first value counts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Query {
    pub transport: TransportType,
    /// `None` means that the request opens a new connection.
    pub sid: Option<Sid>,
}

/// The parameters of a request, with the id as the client wrote it.
#[derive(Clone, Copy, Debug)]
pub(in crate::transport) struct RawQuery<'a> {
    pub transport: TransportType,
    /// `None` means that the request opens a new connection.
    pub sid: Option<&'a str>,
}

impl<'a> RawQuery<'a> {
    pub fn of(uri: &'a Uri) -> Result<Self, EngineError> {
        let value = |wanted| pairs(uri).find(|(name, _)| *name == wanted).map(|(_, value)| value);
        if value("EIO") != Some("4") {
            return Err(EngineError::UnsupportedVersion);
        }
        let transport = match value("transport") {
            Some("polling") => TransportType::Polling,
            Some("websocket") => TransportType::Websocket,
            _ => return Err(EngineError::UnknownTransport),
        };
        Ok(Self { transport, sid: value("sid") })
    }
}

impl Query {
    pub fn of(uri: &Uri) -> Result<Self, EngineError> {
        let RawQuery { transport, sid } = RawQuery::of(uri)?;
        let sid = sid.map(|sid| sid.parse().map_err(|_| EngineError::UnknownSid)).transpose()?;
        Ok(Self { transport, sid })
    }
}

fn pairs(uri: &Uri) -> impl Iterator<Item = (&str, &str)> {
    let query = uri.query().unwrap_or_default();
    query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_queries_of_engine_io_4_are_accepted() {
        let of = |query: &str| Query::of(&format!("/socket.io/?{query}").parse().unwrap());
        let sid = Sid::random();
        let found = of(&format!("transport=polling&EIO=4&t=x&sid={sid}")).unwrap();
        assert_eq!((found.transport, found.sid), (TransportType::Polling, Some(sid)));
        assert_eq!(of("EIO=4&transport=websocket").unwrap().sid, None);
        for (query, error) in [
            ("", EngineError::UnsupportedVersion),
            ("EIO=3&transport=polling", EngineError::UnsupportedVersion),
            ("EIO=3&EIO=4&transport=polling", EngineError::UnsupportedVersion),
            ("EIO=4", EngineError::UnknownTransport),
            ("EIO=4&transport=webtransport", EngineError::UnknownTransport),
            ("EIO=4&transport=polling&sid=", EngineError::UnknownSid),
            ("EIO=4&transport=polling&sid", EngineError::UnknownSid),
            ("EIO=4&transport=polling&sid=AAAAAAAAAAAAAAAA", EngineError::UnknownSid),
        ] {
            assert_eq!(of(query).unwrap_err(), error, "{query}");
        }
    }
}
