//! Sends single HTTP requests, and decides which certificates of servers are trusted. WebSockets of the command line trust
//! the same certificates.

use std::{error::Error, sync::LazyLock, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, header};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper_rustls::{ConfigBuilderExt, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use rustls::ClientConfig;

/// The timeout of a request, from the DNS lookup to the last byte of the answer.
pub const TIMEOUT: Duration = Duration::from_secs(5);
/// The maximum size of the body of an answer. It is ten times the size of the largest known key sets, and no route of a
/// gateway that is asked here answers more.
pub const MAX_BODY_BYTES: usize = 256 * 1024;

/// Why there is no answer, or no body.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    #[error("there is no answer within {} s", .0.as_secs())]
    Timeout(Duration),
    #[error("{0}")]
    Unreachable(String),
    #[error("the answer is longer than {MAX_BODY_BYTES} bytes")]
    TooLong,
}

/// A client that follows no redirects and uses no proxy. Each request has its own connection.
#[derive(Clone, Debug)]
pub struct HttpClient(Client<HttpsConnector<HttpConnector>, Full<Bytes>>);

impl Default for HttpClient {
    fn default() -> Self {
        let connector =
            HttpsConnectorBuilder::new().with_tls_config(tls_config()).https_or_http().enable_http1().build();
        Self(Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(connector))
    }
}

impl HttpClient {
    /// Sends a request. The body of the answer is an error if it can't be read, for example because it is too long. The
    /// status and the headers are known in that case.
    pub async fn send(
        &self,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Result<Bytes, RequestError>>, RequestError> {
        self.send_within(TIMEOUT, request).await
    }

    /// The same with another timeout.
    pub async fn send_within(
        &self,
        limit: Duration,
        mut request: Request<Full<Bytes>>,
    ) -> Result<Response<Result<Bytes, RequestError>>, RequestError> {
        let agent = HeaderValue::from_static(concat!("taskcast/", env!("CARGO_PKG_VERSION")));
        request.headers_mut().insert(header::USER_AGENT, agent);
        let answered = async {
            let answer = self.0.request(request).await;
            let (head, body) = answer.map_err(|error| unreachable(&error))?.into_parts();
            let body = Limited::new(body, MAX_BODY_BYTES).collect().await;
            let body =
                body.map(|body| body.to_bytes()).map_err(|error| match error.is::<LengthLimitError>() {
                    true => RequestError::TooLong,
                    false => unreachable(&*error),
                });
            Ok(Response::from_parts(head, body))
        };
        tokio::time::timeout(limit, answered).await.unwrap_or(Err(RequestError::Timeout(limit)))
    }
}

/// The error and its causes. The outermost error alone says only that there was an error.
fn unreachable(error: &dyn Error) -> RequestError {
    let (mut text, mut cause) = (error.to_string(), error.source());
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    RequestError::Unreachable(text)
}

/// Trusts the system's root certificates, or those in `SSL_CERT_FILE`. If there are none, Mozilla's list is used.
pub fn tls_config() -> ClientConfig {
    // The certificates are read from files, so they are read only once.
    static CONFIG: LazyLock<ClientConfig> = LazyLock::new(|| {
        let native = ClientConfig::builder().with_native_roots();
        native.unwrap_or_else(|_| ClientConfig::builder().with_webpki_roots()).with_no_client_auth()
    });
    CONFIG.clone()
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;

    /// Sends a request to a server that answers this text, and then closes the connection.
    async fn answered(text: String) -> Result<Response<Result<Bytes, RequestError>>, RequestError> {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}/", listener.local_addr().expect("an address"));
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.expect("a request"));
            }
            // The client closes the connection before it has read an answer that is too long.
            let _ = stream.write_all(text.as_bytes()).await;
        });
        let request = Request::get(url).body(Full::default()).expect("a request");
        let answer = HttpClient::default().send(request).await;
        server.await.expect("no panic");
        answer
    }

    #[tokio::test]
    async fn bodies_of_every_framing_are_read() {
        for text in [
            "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nhello",
            "HTTP/1.0 200 OK\r\n\r\nhello",
        ] {
            let answer = answered(text.to_owned()).await.expect("an answer");
            assert_eq!(&**answer.body().as_ref().expect("a body"), b"hello", "{text}");
        }
    }

    #[tokio::test]
    async fn a_redirect_is_not_followed() {
        let text = "HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n";
        assert_eq!(answered(text.to_owned()).await.expect("an answer").status(), 302);
    }

    #[tokio::test]
    async fn the_status_is_known_without_a_body() {
        let long = "x".repeat(MAX_BODY_BYTES + 1);
        let answer = answered(format!("HTTP/1.1 404 Not Found\r\n\r\n{long}")).await.expect("an answer");
        assert_eq!(answer.status(), 404);
        assert!(matches!(answer.body(), Err(RequestError::TooLong)));
        let answer = answered("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhello".to_owned()).await;
        assert!(matches!(answer.expect("an answer").body(), Err(RequestError::Unreachable(_))));
    }

    #[tokio::test]
    async fn an_answer_that_is_not_http_is_an_error_with_its_causes() {
        for text in ["", "SSH-2.0-OpenSSH\r\n\r\n", "HTTP/1.1 x\r\n\r\n"] {
            let error = answered(text.to_owned()).await.expect_err(text).to_string();
            assert!(error.contains(": "), "{error}");
        }
    }
}
