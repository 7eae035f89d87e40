//! Sends HTTP requests to a gateway: without a token for `health` and `check --url`, with one for reports.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, header};

use super::gateway_url::GatewayUrl;
use crate::http_client::{HttpClient, RequestError};

#[derive(Debug)]
pub(super) struct Answer {
    pub status: u16,
    /// `name=value` of each cookie that the server sets.
    pub cookies: Vec<String>,
    /// Empty if the body can't be read.
    pub body: String,
}

/// Sends one request. `cookies` are sent back as a browser does.
pub(super) async fn http_request(
    gateway: &GatewayUrl,
    method: Method,
    path: &str,
    body: &'static str,
    cookies: &[String],
) -> Result<Answer, RequestError> {
    let mut request = Request::builder().method(method).uri(format!("{gateway}{path}"));
    if !cookies.is_empty() {
        request = request.header(header::COOKIE, cookies.join("; "));
    }
    if !body.is_empty() {
        request = request.header(header::CONTENT_TYPE, "text/plain");
    }
    let request = request.body(Bytes::from_static(body.as_bytes()).into());
    let request = request.map_err(|error| RequestError::Unreachable(error.to_string()))?;
    let answer = HttpClient::default().send(request).await?;
    let (status, cookies) = (answer.status().as_u16(), cookies_of(answer.headers()));
    let body = answer.into_body().unwrap_or_default();
    Ok(Answer { status, cookies, body: String::from_utf8_lossy(&body).into_owned() })
}

/// The timeout of a report, including the time for its body. A report is at most a few hundred kilobytes.
const REPORT_TIMEOUT: Duration = Duration::from_secs(20);

/// Sends a body with a token. An answer that breaks off is an error, because its content decides what happens next.
pub(super) async fn post(
    gateway: &GatewayUrl,
    path: &str,
    token: &str,
    content_type: &'static str,
    body: Bytes,
) -> Result<Answer, RequestError> {
    let request = Request::post(format!("{gateway}{path}"))
        .header(header::AUTHORIZATION, format!("Bearer {token}"))
        .header(header::CONTENT_TYPE, content_type)
        .body(body.into())
        .map_err(|error| RequestError::Unreachable(error.to_string()))?;
    let answer = HttpClient::default().send_within(REPORT_TIMEOUT, request).await?;
    let status = answer.status().as_u16();
    let body = answer.into_body()?;
    Ok(Answer { status, cookies: Vec::new(), body: String::from_utf8_lossy(&body).into_owned() })
}

fn cookies_of(headers: &HeaderMap) -> Vec<String> {
    let values = headers.get_all(header::SET_COOKIE).into_iter().filter_map(|value| value.to_str().ok());
    let cookies = values.filter_map(|value| value.split(';').next());
    cookies.map(|cookie| cookie.trim().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_and_values_of_cookies_are_read() {
        let headers = ["io=a1; Path=/; HttpOnly", "node=b"]
            .map(|value| (header::SET_COOKIE, value.parse().expect("a value")));
        assert_eq!(cookies_of(&headers.into_iter().collect()), ["io=a1", "node=b"]);
    }
}
