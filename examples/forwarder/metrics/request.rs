//! Requests of HTTP/1 (RFC 9112), as far as an endpoint for counters needs them.

use super::exposition::Format;

/// Longest request, in bytes, headers included.
pub const MAX_REQUEST: usize = 8192;

/// Most headers of a request.
const MAX_HEADERS: usize = 64;

/// A request that was read whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    pub method: String,
    /// Without what follows a question mark.
    pub path: String,
    /// The format that the headers ask for.
    pub format: Format,
}

/// What a client has sent so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// The beginning of a request.
    Part,
    Whole(Request),
    /// Not a request, or one that is too large.
    Refused(Refusal),
}

/// Why a request was not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    Malformed,
    TooLarge,
}

/// Reads what a client has sent so far.
pub fn parse(bytes: &[u8]) -> Parsed {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(bytes) {
        Ok(httparse::Status::Partial) if bytes.len() >= MAX_REQUEST => {
            return Parsed::Refused(Refusal::TooLarge);
        }
        Ok(httparse::Status::Partial) => return Parsed::Part,
        Ok(httparse::Status::Complete(_)) => {}
        Err(httparse::Error::TooManyHeaders) => return Parsed::Refused(Refusal::TooLarge),
        Err(_) => return Parsed::Refused(Refusal::Malformed),
    }
    let (Some(method), Some(target)) = (request.method, request.path) else {
        return Parsed::Refused(Refusal::Malformed);
    };
    let mut values = Vec::new();
    let mut hosts = 0;
    for header in request.headers.iter() {
        hosts += usize::from(header.name.eq_ignore_ascii_case("host"));
        if header.name.eq_ignore_ascii_case("accept") {
            values.push(String::from_utf8_lossy(header.value).into_owned());
        }
    }
    // RFC 9112 §3.2.
    if hosts > 1 || hosts == 0 && request.version == Some(1) {
        return Parsed::Refused(Refusal::Malformed);
    }
    let format = negotiate(&values.join(","));
    Parsed::Whole(Request { method: method.into(), path: path(target).into(), format })
}

/// The path of a target in origin form or absolute form (RFC 9112 §3.2).
fn path(target: &str) -> &str {
    let origin = match target.strip_prefix("http://") {
        Some(rest) => rest.find('/').map_or("/", |slash| &rest[slash..]),
        None => target,
    };
    origin.split(['?', '#']).next().unwrap_or_default()
}

/// The format that the value of `Accept` (RFC 9110 §12.5.1) prefers. OpenMetrics is for those alone who name it, and of two that
/// are liked alike it is the richer one; who wants neither gets the older one, as from other exporters.
fn negotiate(accept: &str) -> Format {
    let (mut open, mut text) = (0, 0);
    for range in accept.split(',') {
        let mut parts = range.split(';').map(str::trim);
        let media = parts.next().unwrap_or_default().to_ascii_lowercase();
        let (mut weight, mut version) = (1000, None);
        for (name, value) in parts.filter_map(|parameter| parameter.split_once('=')) {
            let value = value.trim().trim_matches('"');
            match name.trim().to_ascii_lowercase().as_str() {
                "q" => {
                    weight = value.parse().map_or(0, |q: f32| (q.clamp(0.0, 1.0) * 1000.0) as u32)
                }
                "version" => version = Some(value),
                _ => {}
            }
        }
        let is = |wanted| version.is_none_or(|version| version == wanted);
        match media.as_str() {
            "application/openmetrics-text" if is("1.0.0") => open = weight.max(open),
            "text/plain" if is("0.0.4") => text = weight.max(text),
            _ => {}
        }
    }
    if open > 0 && open >= text { Format::OpenMetrics } else { Format::Text }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(text: &str) -> Request {
        match parse(text.as_bytes()) {
            Parsed::Whole(request) => request,
            other => panic!("{text:?}: {other:?}"),
        }
    }

    #[test]
    fn a_request_is_read_when_it_is_whole() {
        let text =
            "GET /metrics?x=1 HTTP/1.1\r\nHost: a\r\nAccept: application/openmetrics-text\r\n\r\n";
        for end in 0..text.len() {
            assert_eq!(parse(&text.as_bytes()[..end]), Parsed::Part, "{end}");
        }
        let request = whole(text);
        assert_eq!((request.method.as_str(), request.path.as_str()), ("GET", "/metrics"));
        assert_eq!(request.format, Format::OpenMetrics);
        assert_eq!(whole("HEAD http://h:1/metrics HTTP/1.0\r\n\r\n").path, "/metrics");
        assert_eq!(whole("GET http://h HTTP/1.0\r\n\r\n").path, "/");
    }

    #[test]
    fn what_is_no_request_is_refused() {
        let two = "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n";
        for text in ["\0\0", "GET\r\n\r\n", "GET / HTTP/2.0\r\n\r\n", "GET / HTTP/1.1\r\n\r\n", two]
        {
            assert_eq!(parse(text.as_bytes()), Parsed::Refused(Refusal::Malformed), "{text:?}");
        }
        let mut long = b"GET /".to_vec();
        long.resize(MAX_REQUEST - 1, b'a');
        assert_eq!(parse(&long), Parsed::Part);
        long.push(b'a');
        assert_eq!(parse(&long), Parsed::Refused(Refusal::TooLarge));
        let many = format!("GET / HTTP/1.0\r\n{}\r\n", "a: b\r\n".repeat(MAX_HEADERS + 1));
        assert_eq!(parse(many.as_bytes()), Parsed::Refused(Refusal::TooLarge));
    }

    #[test]
    fn the_format_is_the_one_that_is_preferred() {
        let prometheus = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,\
                          application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        for (accept, format) in [
            (prometheus, Format::OpenMetrics),
            ("application/openmetrics-text; version=\"1.0.0\"; charset=utf-8", Format::OpenMetrics),
            ("Application/OpenMetrics-Text , text/plain", Format::OpenMetrics),
            ("application/openmetrics-text;q=0.1, text/plain;q=0.9", Format::Text),
            ("application/openmetrics-text;q=0, text/plain;q=0", Format::Text),
            ("application/openmetrics-text;version=2.0.0", Format::Text),
            ("application/openmetrics-text;q=nan,;;,=", Format::Text),
            ("text/html,*/*;q=0.8", Format::Text),
            ("application/json", Format::Text),
            ("", Format::Text),
        ] {
            assert_eq!(negotiate(accept), format, "{accept}");
        }
    }
}
