//! Just enough HTTP/1.1 to answer, well or badly.
//!
//! Pure: bytes in, bytes out. A library would not let the faults through.

use std::borrow::Cow;
use std::fmt::Write as _;

use jiff::Timestamp;

/// Longest request head. Ollama's own limit is larger, but nobody needs it.
pub const MAX_HEAD: usize = 32 * 1024;

/// The head of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The method.
    pub method: String,
    /// Without the query.
    pub path: String,
    /// Whether the connection stays open afterwards.
    pub keep_alive: bool,
    /// Bytes of the request's body.
    pub content_length: u64,
    /// Value of Host.
    pub host: Option<String>,
    /// Value of User-Agent.
    pub user_agent: Option<String>,
    /// Value of Accept-Encoding.
    pub accept_encoding: Option<String>,
    /// The Authorization header, to be compared and never shown.
    pub authorization: Option<Sent>,
}

/// A value that is nobody's business.
#[derive(Clone, PartialEq, Eq)]
pub struct Sent(String);

impl Sent {
    /// Whether it is this.
    pub fn is(&self, text: &str) -> bool {
        self.0 == text
    }
}

impl std::fmt::Debug for Sent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sent")
    }
}

impl Request {
    /// HEAD: the body is left out.
    pub fn is_head(&self) -> bool {
        self.method == "HEAD"
    }
}

/// Reads a head: `None` while it is not complete, else it and its length.
pub fn parse(bytes: &[u8]) -> Result<Option<(Request, usize)>, &'static str> {
    let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
        return if bytes.len() > MAX_HEAD { Err("head too long") } else { Ok(None) };
    };
    let head = std::str::from_utf8(&bytes[..end]).map_err(|_| "head is not UTF-8")?;
    let mut lines = head.split("\r\n");
    let mut first = lines.next().unwrap_or_default().split(' ');
    let (Some(method), Some(target), Some(version), None) =
        (first.next(), first.next(), first.next(), first.next())
    else {
        return Err("bad request line");
    };
    if !version.starts_with("HTTP/1.") || !target.starts_with('/') || method.is_empty() {
        return Err("bad request line");
    }
    let mut request = Request {
        method: method.to_owned(),
        path: target.split('?').next().unwrap_or_default().to_owned(),
        keep_alive: version == "HTTP/1.1",
        content_length: 0,
        host: None,
        user_agent: None,
        accept_encoding: None,
        authorization: None,
    };
    for line in lines {
        let (name, value) = line.split_once(':').ok_or("bad header")?;
        let value = value.trim();
        match name.to_ascii_lowercase().as_str() {
            "host" => request.host = Some(value.to_owned()),
            "user-agent" => request.user_agent = Some(value.to_owned()),
            "accept-encoding" => request.accept_encoding = Some(value.to_owned()),
            "authorization" => request.authorization = Some(Sent(value.to_owned())),
            "connection" => request.keep_alive &= !value.eq_ignore_ascii_case("close"),
            "content-length" => {
                request.content_length = value.parse().map_err(|_| "bad Content-Length")?;
            }
            // Such a body is not read, so nothing can follow it.
            "transfer-encoding" => request.keep_alive = false,
            _ => {}
        }
    }
    Ok(Some((request, end + 4)))
}

/// An answer before it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Status code.
    pub code: u16,
    /// Absent: no such header.
    pub content_type: Option<Cow<'static, str>>,
    /// Headers other than length, type, date and connection.
    pub headers: Vec<(&'static str, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Answer {
    /// 200 with JSON, as Ollama labels it.
    pub fn json(body: Vec<u8>) -> Self {
        Self {
            code: 200,
            content_type: Some("application/json; charset=utf-8".into()),
            headers: Vec::new(),
            body,
        }
    }

    /// Plain text.
    pub fn text(code: u16, body: &str) -> Self {
        Self {
            code,
            content_type: Some("text/plain; charset=utf-8".into()),
            headers: Vec::new(),
            body: body.as_bytes().to_vec(),
        }
    }

    /// The same with another status code.
    pub fn with_code(mut self, code: u16) -> Self {
        self.code = code;
        self
    }

    /// Status line and headers, with the empty line after them.
    pub fn head(&self, framing: Framing, date: Option<Timestamp>, keep_alive: bool) -> Vec<u8> {
        let mut head = String::with_capacity(192);
        let _ = write!(head, "HTTP/1.1 {} {}\r\n", self.code, reason(self.code));
        if let Some(content_type) = &self.content_type {
            let _ = write!(head, "Content-Type: {content_type}\r\n");
        }
        for (name, value) in &self.headers {
            let _ = write!(head, "{name}: {value}\r\n");
        }
        if let Some(date) = date {
            let _ = write!(head, "Date: {}\r\n", date.strftime("%a, %d %b %Y %H:%M:%S GMT"));
        }
        let _ = match framing {
            Framing::Length(length) => write!(head, "Content-Length: {length}\r\n"),
            Framing::Chunked => write!(head, "Transfer-Encoding: chunked\r\n"),
            Framing::UntilClose => Ok(()),
        };
        if !keep_alive || framing == Framing::UntilClose {
            head.push_str("Connection: close\r\n");
        }
        head.push_str("\r\n");
        head.into_bytes()
    }
}

/// How a client finds the end of the body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// Content-Length.
    Length(u64),
    /// Chunks.
    Chunked,
    /// The end of the connection.
    UntilClose,
}

fn reason(code: u16) -> &'static str {
    match code {
        200 => "OK",
        301 => "Moved Permanently",
        302 => "Found",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        429 => "Too Many Requests",
        500 => "Internal Server Error",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        _ => "Status",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_heads() {
        let bytes = b"GET /api/ps?x=1 HTTP/1.1\r\nHOST: a:1\r\nAuthorization: Bearer s\r\n\
                      Connection: close\r\nContent-Length: 3\r\n\r\nabc";
        let (request, length) = parse(bytes).unwrap().unwrap();
        assert_eq!(&bytes[length..], b"abc");
        assert_eq!((request.method.as_str(), request.path.as_str()), ("GET", "/api/ps"));
        assert_eq!(request.host.as_deref(), Some("a:1"));
        assert!(request.authorization.is_some() && !request.keep_alive);
        assert_eq!(request.content_length, 3);
        assert_eq!(parse(b"GET / HTTP/1.1\r\nHost: a\r\n"), Ok(None));
        for bad in [&b"GET /\r\n\r\n"[..], b"\x16\x03\r\n\r\n", b"GET x HTTP/1.1\r\n\r\n"] {
            assert!(parse(bad).is_err());
        }
        assert!(parse(&vec![b'a'; MAX_HEAD + 1]).is_err());
        assert!(!parse(b"GET / HTTP/1.0\r\n\r\n").unwrap().unwrap().0.keep_alive);
    }

    #[test]
    fn writes_heads() {
        let answer = Answer::text(404, "x");
        let date = Some(Timestamp::UNIX_EPOCH);
        let head = String::from_utf8(answer.head(Framing::Length(1), date, true)).unwrap();
        assert_eq!(
            head,
            "HTTP/1.1 404 Not Found\r\nContent-Type: text/plain; charset=utf-8\r\n\
             Date: Thu, 01 Jan 1970 00:00:00 GMT\r\nContent-Length: 1\r\n\r\n"
        );
        let head = String::from_utf8(answer.head(Framing::UntilClose, None, true)).unwrap();
        assert!(head.contains("Connection: close") && !head.contains("Date"));
    }
}
