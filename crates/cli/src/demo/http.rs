//! As much of HTTP/1.1 as the built-in worker and the load generator need: pure text to values and back.
//! Sockets, times and what to do about a bad message are left to them.

/// The head of a request, as the built-in worker reads it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) method: String,
    /// Path and query, undecoded.
    pub(crate) target: String,
    /// Bytes of body that follow the head; 0 without `Content-Length`.
    pub(crate) body_length: u64,
    /// Whether the connection may be used again after the answer.
    pub(crate) keep_alive: bool,
    /// Whether the client waits for `100 Continue` before it sends the body.
    pub(crate) expects_continue: bool,
}

/// A whole response, as the load generator reads it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
    /// Whether the connection may be used again.
    pub(crate) keep_alive: bool,
}

/// Why bytes are not HTTP that is understood here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed(pub(crate) &'static str);

/// The first request head in `bytes` and its length in bytes; `None` while it is incomplete.
pub(crate) fn parse_request(bytes: &[u8]) -> Result<Option<(Request, usize)>, Malformed> {
    let Some((head, length)) = split_head(bytes)? else { return Ok(None) };
    let mut words = head.first.split(' ');
    let (Some(method), Some(target), Some(version), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(Malformed("the request line is not `METHOD TARGET VERSION`"));
    };
    if method.is_empty() || !method.bytes().all(|byte| byte.is_ascii_uppercase()) || !target.starts_with('/')
    {
        return Err(Malformed("the method or the target is not valid"));
    }
    if head.value("transfer-encoding").is_some() {
        return Err(Malformed("only bodies with a content-length are read"));
    }
    let request = Request {
        method: method.into(),
        target: target.into(),
        body_length: head.content_length()?.unwrap_or(0),
        keep_alive: head.keeps_alive(version)?,
        expects_continue: head
            .value("expect")
            .is_some_and(|value| value.eq_ignore_ascii_case("100-continue")),
    };
    Ok(Some((request, length)))
}

/// The first final response in `bytes` and its length in bytes; `None` while more is needed. `closed`: the peer has
/// sent all it will send, which ends a body of unstated length.
pub(crate) fn parse_response(bytes: &[u8], closed: bool) -> Result<Option<(Response, usize)>, Malformed> {
    let mut start = 0;
    loop {
        let Some((head, length)) = split_head(&bytes[start..])? else { return Ok(None) };
        let (status, version) = status_line(head.first)?;
        start += length;
        if (100..200).contains(&status) && status != 101 {
            continue;
        }
        let rest = &bytes[start..];
        let keep_alive = head.keeps_alive(version)?;
        let chunked =
            head.value("transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked"));
        let framed = if matches!(status, 101 | 204 | 304) {
            Some((Vec::new(), 0))
        } else if chunked {
            dechunk(rest)?
        } else if let Some(length) = head.content_length()? {
            let length = usize::try_from(length).map_err(|_| Malformed("the content-length is too large"))?;
            rest.get(..length).map(|body| (body.to_vec(), length))
        } else {
            let body = closed.then(|| (rest.to_vec(), rest.len()));
            return Ok(body.map(|(body, used)| (Response { status, body, keep_alive: false }, start + used)));
        };
        return Ok(framed.map(|(body, used)| (Response { status, body, keep_alive }, start + used)));
    }
}

/// A GET request as bytes.
pub(crate) fn get(target: &str, host: &str, keep_alive: bool) -> Vec<u8> {
    let connection = if keep_alive { "keep-alive" } else { "close" };
    format!("GET {target} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: shiftboss-demo\r\nConnection: {connection}\r\n\r\n")
        .into_bytes()
}

/// A plain-text response as bytes.
pub(crate) fn respond(status: u16, body: &str, keep_alive: bool) -> Vec<u8> {
    let connection = if keep_alive { "keep-alive" } else { "close" };
    let reason = reason(status);
    let length = body.len();
    format!(
        "HTTP/1.1 {status} {reason}\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\n\
         Connection: {connection}\r\n\r\n{body}"
    )
    .into_bytes()
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        404 => "Not Found",
        405 => "Method Not Allowed",
        431 => "Request Header Fields Too Large",
        _ => "Unknown",
    }
}

/// First line and header fields of a message.
struct Head<'a> {
    first: &'a str,
    fields: Vec<(&'a str, &'a str)>,
}

impl<'a> Head<'a> {
    fn value(&self, name: &str) -> Option<&'a str> {
        self.fields.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| *value)
    }

    fn content_length(&self) -> Result<Option<u64>, Malformed> {
        let mut lengths = self.fields.iter().filter(|(key, _)| key.eq_ignore_ascii_case("content-length"));
        let Some((_, length)) = lengths.next() else { return Ok(None) };
        if lengths.any(|(_, other)| other != length) {
            return Err(Malformed("two content-lengths disagree"));
        }
        if length.is_empty() || !length.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(Malformed("the content-length is not a number"));
        }
        length.parse().map(Some).map_err(|_| Malformed("the content-length is too large"))
    }

    fn keeps_alive(&self, version: &str) -> Result<bool, Malformed> {
        let says = |word: &str| {
            let values = self.fields.iter().filter(|(key, _)| key.eq_ignore_ascii_case("connection"));
            values.flat_map(|(_, value)| value.split(',')).any(|part| part.trim().eq_ignore_ascii_case(word))
        };
        match version {
            "HTTP/1.1" => Ok(!says("close")),
            "HTTP/1.0" => Ok(says("keep-alive") && !says("close")),
            _ => Err(Malformed("the version is neither HTTP/1.0 nor HTTP/1.1")),
        }
    }
}

/// The head at the start of `bytes` and its length with the blank line; `None` while that line is missing.
fn split_head(bytes: &[u8]) -> Result<Option<(Head<'_>, usize)>, Malformed> {
    let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else { return Ok(None) };
    let text = str::from_utf8(&bytes[..end]).map_err(|_| Malformed("the head is not UTF-8"))?;
    let mut lines = text.split("\r\n");
    let first = lines.next().unwrap_or_default();
    let fields = lines.map(|line| match line.split_once(':') {
        Some((name, value)) if !name.is_empty() && !name.contains([' ', '\t']) => Ok((name, value.trim())),
        _ => Err(Malformed("a header line is not `name: value`")),
    });
    Ok(Some((Head { first, fields: fields.collect::<Result<_, _>>()? }, end + 4)))
}

fn status_line(line: &str) -> Result<(u16, &str), Malformed> {
    let mut words = line.splitn(3, ' ');
    let version = words.next().unwrap_or_default();
    let status = words.next().filter(|word| word.len() == 3).and_then(|word| word.parse().ok());
    match status {
        Some(status) if (100..600).contains(&status) => Ok((status, version)),
        _ => Err(Malformed("the status line is not `VERSION STATUS REASON`")),
    }
}

/// The body held in chunks at the start of `bytes` and the length of all chunks; `None` while the last is missing.
fn dechunk(bytes: &[u8]) -> Result<Option<(Vec<u8>, usize)>, Malformed> {
    let (mut body, mut at) = (Vec::new(), 0);
    loop {
        let Some(line) = line_at(bytes, at) else { return Ok(None) };
        let size = line.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
        let size = str::from_utf8(size).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_hexdigit()));
        let size = size.and_then(|text| usize::from_str_radix(text, 16).ok());
        let size = size.filter(|size| *size <= BODY_LIMIT).ok_or(Malformed("a chunk's size is not valid"))?;
        at += line.len() + 2;
        if size == 0 {
            return Ok(trailers_end(bytes, at).map(|end| (body, end)));
        }
        let Some(chunk) = bytes.get(at..at + size + 2) else { return Ok(None) };
        let Some(data) = chunk.strip_suffix(b"\r\n") else {
            return Err(Malformed("a chunk does not end where it should"));
        };
        body.extend_from_slice(data);
        at += size + 2;
    }
}

fn trailers_end(bytes: &[u8], mut at: usize) -> Option<usize> {
    loop {
        let line = line_at(bytes, at)?;
        at += line.len() + 2;
        if line.is_empty() {
            return Some(at);
        }
    }
}

fn line_at(bytes: &[u8], at: usize) -> Option<&[u8]> {
    let rest = bytes.get(at..)?;
    rest.windows(2).position(|window| window == b"\r\n").map(|end| &rest[..end])
}

/// Largest response that is read, in bytes.
pub(crate) const BODY_LIMIT: usize = 16 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_whole_only_at_its_blank_line() {
        let bytes = get("/slow?ms=5", "127.0.0.1:80", true);
        for cut in 0..bytes.len() {
            assert_eq!(parse_request(&bytes[..cut]), Ok(None), "cut at {cut}");
        }
        let (request, used) = parse_request(&bytes).unwrap().unwrap();
        assert_eq!(
            (request.method.as_str(), request.target.as_str(), used),
            ("GET", "/slow?ms=5", bytes.len())
        );
        assert!(request.keep_alive);
    }

    #[test]
    fn the_connection_is_kept_as_version_and_header_say() {
        let kept = |text: &str| parse_request(text.as_bytes()).unwrap().unwrap().0.keep_alive;
        assert!(kept("GET / HTTP/1.1\r\n\r\n"));
        assert!(!kept("GET / HTTP/1.1\r\nConnection: foo, Close\r\n\r\n"));
        assert!(!kept("GET / HTTP/1.0\r\n\r\n"));
        assert!(kept("GET / HTTP/1.0\r\nconnection: Keep-Alive\r\n\r\n"));
    }

    #[test]
    fn what_is_not_a_request_is_refused() {
        for text in [
            "GET /\r\n\r\n",
            "get / HTTP/1.1\r\n\r\n",
            "GET x HTTP/1.1\r\n\r\n",
            "GET / HTTP/2\r\n\r\n",
            "GET / HTTP/1.1\r\nno colon\r\n\r\n",
            "GET / HTTP/1.1\r\nbad name: x\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: +3\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
        ] {
            assert!(parse_request(text.as_bytes()).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_response_written_here_is_read_back_and_nothing_beyond_it() {
        let mut bytes = respond(200, "hello\n", true);
        let length = bytes.len();
        for cut in 0..length {
            assert_eq!(parse_response(&bytes[..cut], false), Ok(None), "cut at {cut}");
        }
        bytes.extend_from_slice(b"HTTP/1.1 200");
        let response = Response { status: 200, body: b"hello\n".to_vec(), keep_alive: true };
        assert_eq!(parse_response(&bytes, false), Ok(Some((response, length))));
    }

    #[test]
    fn chunks_are_joined_and_trailers_passed() {
        let text = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nwiki\r\nA;x=y\r\n0123456789\r\n0\r\nT: x\r\n\r\n";
        for cut in 0..text.len() {
            assert_eq!(parse_response(&text.as_bytes()[..cut], false), Ok(None), "cut at {cut}");
        }
        let (response, used) = parse_response(text.as_bytes(), false).unwrap().unwrap();
        assert_eq!((response.body.as_slice(), used), (b"wiki0123456789".as_slice(), text.len()));
        let broken = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nwikixx0\r\n\r\n";
        assert!(parse_response(broken.as_bytes(), false).is_err());
        let negative = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n+4\r\nwiki\r\n0\r\n\r\n";
        assert!(parse_response(negative.as_bytes(), false).is_err());
    }

    #[test]
    fn a_body_without_length_ends_with_the_connection() {
        let text = b"HTTP/1.1 200 OK\r\n\r\nabc";
        assert_eq!(parse_response(text, false), Ok(None));
        let (response, _) = parse_response(text, true).unwrap().unwrap();
        assert_eq!((response.body.as_slice(), response.keep_alive), (b"abc".as_slice(), false));
    }

    #[test]
    fn an_interim_response_is_passed_over() {
        let text = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n";
        let (response, used) = parse_response(text, false).unwrap().unwrap();
        assert_eq!((response.status, used), (204, text.len()));
    }
}
