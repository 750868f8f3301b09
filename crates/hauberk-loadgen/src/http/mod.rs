//! A load of HTTP requests over raw sockets, cheaper to make than to answer.

mod blocking;
mod crowd;
mod echo;

pub(crate) use blocking::{BlockingClient, Download};
pub(crate) use crowd::Crowd;
pub(crate) use echo::{Echo, EchoOptions, echo};

use anyhow::{Context, Result, bail};

/// Makes a request as substitute clients send it.
pub(crate) fn request(path: &str) -> Vec<u8> {
    format!(
        "GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nUser-Agent: hauberk-loadgen\r\nAccept: */*\r\nAccept-Encoding: deflate, gzip, br, zstd\r\n\r\n"
    )
    .into_bytes()
}

/// Finds the end of an answer's head in `bytes`, and the length of its body; nothing while the head is not whole.
fn head(bytes: &[u8]) -> Result<Option<(usize, u64)>> {
    let Some((end, length)) = any_head(bytes)? else { return Ok(None) };
    Ok(Some((end, length.context("an answer has no Content-Length")?)))
}

/// Does as [`head`] where the length may come with the body.
fn any_head(bytes: &[u8]) -> Result<Option<(usize, Option<u64>)>> {
    let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else { return Ok(None) };
    let text = std::str::from_utf8(&bytes[..end]).context("reading an answer's head")?;
    if !text.starts_with("HTTP/1.1 200") {
        bail!("an answer is not 200: {}", text.lines().next().unwrap_or_default());
    }
    let length = text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        if name.eq_ignore_ascii_case("content-length") { value.trim().parse().ok() } else { None }
    });
    Ok(Some((end + 4, length)))
}
