//! Sends single HTTP requests without a token, for `health` and `check --url`.

use std::{io, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{
    TlsConnector,
    rustls::{ClientConfig, RootCertStore, crypto::ring, pki_types::ServerName},
};

use super::gateway_url::GatewayUrl;

const WITHIN: Duration = Duration::from_secs(5);
/// The maximum size of a response that is read. No route that is asked here answers more.
const MOST: u64 = 256 * 1024;

#[derive(Debug)]
pub(super) struct Answer {
    pub status: u16,
    /// `name=value` of each cookie that the server sets.
    pub cookies: Vec<String>,
    pub body: String,
}

/// Sends one request. `cookies` are sent back as a browser does.
pub(super) async fn ask(
    gateway: &GatewayUrl,
    method: &str,
    path: &str,
    body: &str,
    cookies: &[String],
) -> io::Result<Answer> {
    let (authority, before) = gateway.authority_and_path();
    let cookie = match cookies {
        [] => String::new(),
        cookies => format!("Cookie: {}\r\n", cookies.join("; ")),
    };
    let length = match body {
        "" => String::new(),
        body => format!("Content-Type: text/plain\r\nContent-Length: {}\r\n", body.len()),
    };
    let request = format!(
        "{method} {before}{path} HTTP/1.1\r\nHost: {authority}\r\nUser-Agent: taskcast\r\nConnection: close\r\n{cookie}{length}\r\n{body}"
    );
    let asked = async {
        let stream = TcpStream::connect(gateway.address()).await?;
        match gateway.has_tls() {
            true => exchange(secured(gateway, stream).await?, &request).await,
            false => exchange(stream, &request).await,
        }
    };
    timeout(WITHIN, asked).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

async fn secured(
    gateway: &GatewayUrl,
    stream: TcpStream,
) -> io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let (host, _) = gateway.address();
    let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
    let roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    TlsConnector::from(Arc::new(config)).connect(name, stream).await
}

async fn exchange<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, request: &str) -> io::Result<Answer> {
    stream.write_all(request.as_bytes()).await?;
    let mut read = Vec::new();
    match stream.take(MOST).read_to_end(&mut read).await {
        // Some servers close the connection without TLS's `close_notify`.
        Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => return Err(error),
        _ => {}
    }
    parse(&String::from_utf8_lossy(&read)).ok_or_else(|| io::Error::other("the answer is not HTTP"))
}

/// Reads the status, the cookies and the body. A chunked body is not decoded.
fn parse(text: &str) -> Option<Answer> {
    let (head, body) = text.split_once("\r\n\r\n")?;
    let mut lines = head.split("\r\n");
    let status = lines.next()?.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.parse().ok()?;
    let headers = lines.filter_map(|line| line.split_once(':'));
    let cookies = headers
        .filter(|(name, _)| name.eq_ignore_ascii_case("set-cookie"))
        .filter_map(|(_, value)| value.split(';').next())
        .map(|cookie| cookie.trim().to_owned())
        .collect();
    Some(Answer { status, cookies, body: body.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_cookies_and_body_of_an_answer_are_read() {
        let text = "HTTP/1.1 200 OK\r\nSet-Cookie: io=a1; Path=/; HttpOnly\r\nset-cookie: node=b\r\n\r\n0{\"sid\":\"x\"}";
        let answer = parse(text).expect("an answer");
        assert_eq!((answer.status, answer.body.as_str()), (200, "0{\"sid\":\"x\"}"));
        assert_eq!(answer.cookies, ["io=a1", "node=b"]);
        for text in ["", "SSH-2.0-OpenSSH\r\n\r\n", "HTTP/1.1 x\r\n\r\n"] {
            assert!(parse(text).is_none(), "{text}");
        }
    }
}
